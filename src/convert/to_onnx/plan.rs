//! A graph with the layout of its files, and how they are written.

use curmerge_formats::dtype::DType;
use curmerge_formats::onnx::{NewOnnx, NewOnnxTensor, OnnxLayout};
use curmerge_formats::output::OutputFile;

use super::builder::{Builder, MICROSOFT};
use super::matrix::{Form, Matrix, Sinks, Source};
use super::options::OnnxOptions;
use crate::Result;
use crate::convert::retype::ConvertReport;
use crate::convert::to_hugging_face::Rounding;

/// The version of the standard operators, and that of ONNX's file format.
const OPSET: i64 = 14;
const IR_VERSION: i64 = 8;

/// A model that is ready to be written.
pub(super) struct Plan<'a> {
    pub(super) model: NewOnnx,
    matrices: Vec<(usize, Matrix<'a>)>,
    layout: OnnxLayout,
}

impl<'a> Plan<'a> {
    /// `external` is the name of the file beside the model, if it needs one.
    pub(super) fn new(builder: Builder<'a>, options: &OnnxOptions, external: &str) -> Result<Self> {
        let mut opsets = vec![(String::new(), OPSET)];
        if builder.graph.nodes.iter().any(|node| node.domain == MICROSOFT) {
            opsets.push((MICROSOFT.into(), 1));
        }
        let model = NewOnnx {
            ir_version: IR_VERSION,
            producer: ("curmerge".into(), env!("CARGO_PKG_VERSION").into()),
            opsets,
            metadata: Vec::new(),
            graph: builder.graph,
        };
        let layout = match OnnxLayout::new(&model, None) {
            Ok(layout) if !options.external_data => layout,
            // Too large for one file.
            _ => OnnxLayout::new(&model, Some(external))?,
        };
        Ok(Plan { model, matrices: builder.matrices, layout })
    }

    /// Whether the model has a file beside it.
    pub(super) fn is_external(&self) -> bool {
        self.layout.external_bytes() > 0
    }

    /// Writes the files. The caller commits them.
    pub(super) fn write(
        &self,
        model: &OutputFile,
        external: Option<&OutputFile>,
        options: &OnnxOptions,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<ConvertReport> {
        let mut report = ConvertReport {
            bytes_before: self.matrices.iter().map(|(_, matrix)| matrix.stored_bytes()).sum(),
            bytes_after: self.layout.places().iter().map(|place| place.bytes).sum(),
            ..Default::default()
        };
        for (offset, bytes) in self.layout.frame() {
            model.write_all_at(offset, bytes)?;
        }
        let sinks = Sinks { model, external };
        let (mut read, mut rounding) = (0, Rounding::default());
        for (first, matrix) in &self.matrices {
            let moved = matrix.write(&self.layout.places()[*first..], &sinks)?;
            if let Source::Angles(_) = matrix.source {
                continue;
            }
            rounding = rounding.and(moved);
            read += matrix.stored_bytes();
            progress(read, report.bytes_before);
            let name = match matrix.form {
                Form::Blocks { .. } => options.file_type.to_string(),
                Form::Rows(element) | Form::Columns(element) => {
                    element.dtype().map_or("", DType::name).into()
                }
            };
            *report.types.entry(name).or_default() += 1;
        }
        let vectors = self.model.graph.initializers.iter();
        // Neither constants of the graph nor LoRA inputs.
        let own = |tensor: &&NewOnnxTensor| !tensor.name.starts_with('/') && !tensor.dims.contains(&0);
        let vectors = vectors.filter(|tensor| tensor.values.is_some()).filter(own);
        for vector in vectors {
            *report.types.entry(vector.element.dtype().map_or("", DType::name).into()).or_default() += 1;
        }
        report.notes.extend(rounding.note(options.file_type));
        Ok(report)
    }
}
