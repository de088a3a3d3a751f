//! A search for weights that are no finite numbers.

use rayon::prelude::*;

use super::model::Base;
use crate::{Error, Result};

impl Base {
    /// Refuses a model with a weight that is NaN or infinite, and names the tensor and the place. It decodes
    /// the whole model, so it is for finding out why a result is not finite. Tensors that curmerge cannot
    /// decode are left out.
    ///
    /// # Errors
    /// Such a weight.
    pub fn must_be_finite(&self) -> Result<()> {
        self.tensors.iter().try_for_each(|(name, tensor)| match tensor.shape[..] {
            [experts, _, _] => {
                (0..experts).try_for_each(|expert| self.must_have_finite(&format!("{name}[{expert}]")))
            }
            _ => self.must_have_finite(name),
        })
    }

    fn must_have_finite(&self, name: &str) -> Result<()> {
        let Ok(weight) = self.weight(name) else { return Ok(()) };
        let found = (0..weight.rows()).into_par_iter().find_map_first(|row| {
            let mut values = vec![0.0; weight.cols()];
            weight.decode_row(row, &mut values);
            values.iter().position(|x| !x.is_finite()).map(|column| (row, column, values[column]))
        });
        let Some((row, column, value)) = found else { return Ok(()) };
        let place = format!("tensor '{name}'");
        let problem = format!("the number in row {row}, column {column} is {value}");
        Err(Error::input(self.path(), place, problem, "get the model again, or convert it again"))
    }
}
