//! The values of a tensor: as raw bytes, whatever field holds them, and as `f32`.

use std::borrow::Cow;

use super::element::{ElementType, TypedField};
use super::wire::{Field, Message, Source, Value};
use super::{Onnx, OnnxTensor, Storage};
use crate::error::{Error, Result, quoted};
use crate::quant;

impl Onnx {
    /// The values of a tensor of this model as `raw_data` holds them: little-endian, [`OnnxTensor::bytes`]
    /// long. They are copied only if a typed field holds them in another form.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for texts, and for 6-bit floats that are not raw data; [`Error::Malformed`] for
    /// numbers in a typed field that the element type cannot hold.
    ///
    /// # Panics
    /// If `tensor` is of another model and lies beyond this one.
    pub fn data(&self, tensor: &OnnxTensor) -> Result<Cow<'_, [u8]>> {
        let range = |offset: u64| offset as usize..(offset + tensor.bytes) as usize;
        match tensor.storage {
            Storage::Raw { offset } => Ok(Cow::Borrowed(&self.bytes()[range(offset)])),
            Storage::External { file, offset } => {
                Ok(Cow::Borrowed(&self.external_files()[file].file.bytes()[range(offset)]))
            }
            Storage::Typed => self.typed(tensor),
        }
    }

    /// Where the bytes of [`Onnx::data`] lie: the position of their file in [`Onnx::external_files`], or
    /// `None` for the model file, and their offset. `None` if they are copied.
    ///
    /// # Errors
    /// Those of [`Onnx::data`].
    pub fn position(&self, tensor: &OnnxTensor) -> Result<Option<(Option<usize>, u64)>> {
        Ok(match (&tensor.storage, self.data(tensor)?) {
            (_, Cow::Owned(_)) => None,
            (&Storage::External { file, offset }, _) => Some((Some(file), offset)),
            (&Storage::Raw { offset }, _) => Some((None, offset)),
            (Storage::Typed, Cow::Borrowed(bytes)) => {
                let distance = bytes.as_ptr().addr().checked_sub(self.bytes().as_ptr().addr());
                distance.map(|distance| (None, distance as u64))
            }
        })
    }

    /// The values of a tensor as `f32`, in its own order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless it is FLOAT, FLOAT16, BFLOAT16 or DOUBLE; those of [`Onnx::data`].
    pub fn decode(&self, tensor: &OnnxTensor) -> Result<Vec<f32>> {
        use ElementType as E;
        let dtype = tensor.element.dtype();
        let floats = [E::FLOAT, E::FLOAT16, E::BFLOAT16, E::DOUBLE].contains(&tensor.element);
        let Some(dtype) = dtype.filter(|_| floats) else {
            return Err(self.unsupported(tensor, format!("{} is not read as weights", tensor.element)));
        };
        let data = self.data(tensor)?;
        let mut values = vec![0.0; tensor.elements() as usize];
        quant::decode(dtype, &data, &mut values)
            .map_err(|error| Error::malformed(self.path(), place(tensor), error.to_string(), EXPORT_AGAIN))?;
        Ok(values)
    }

    fn unsupported(&self, tensor: &OnnxTensor, problem: String) -> Error {
        Error::unsupported(self.path(), place(tensor), problem, EXPORT_AGAIN)
    }

    fn typed(&self, tensor: &OnnxTensor) -> Result<Cow<'_, [u8]>> {
        let (element, field) = (tensor.element, tensor.element.field());
        let source = Source { path: self.path(), bytes: self.bytes() };
        let message = Message { source, kind: "TensorProto", range: tensor.message.clone() };
        let Some((_, width)) = element.entries_for(tensor.elements()).filter(|&(_, width)| width > 0) else {
            let problem = format!("{element} in {} cannot be given as raw bytes", field.name());
            return Err(self.unsupported(tensor, problem));
        };
        let fields = || message.fields().filter(|f| f.as_ref().is_ok_and(|f| f.number == field.number()));
        if matches!(field, TypedField::Float | TypedField::Double) {
            let mut parts = fields();
            if let (Some(Ok(Field { value: Value::Bytes(range), .. })), None) = (parts.next(), parts.next()) {
                return Ok(Cow::Borrowed(&self.bytes()[range]));
            }
        }
        // The entries were counted when the file was opened; each takes at least a byte of it.
        let mut data = Vec::with_capacity(tensor.bytes as usize);
        for part in fields() {
            match part?.value {
                Value::Bytes(range) if matches!(field, TypedField::Float | TypedField::Double) => {
                    data.extend_from_slice(&self.bytes()[range]);
                }
                Value::Bytes(range) => {
                    for value in source.varints("TensorProto", range) {
                        self.push(tensor, value?, width, &mut data)?;
                    }
                }
                Value::Varint(value) => self.push(tensor, value, width, &mut data)?,
                Value::Fixed32(bits) => data.extend(bits.to_le_bytes()),
                Value::Fixed64(bits) => data.extend(bits.to_le_bytes()),
            }
        }
        Ok(Cow::Owned(data))
    }

    /// Appends the lowest `width` bytes of an entry. The bytes above must only extend its sign.
    fn push(&self, tensor: &OnnxTensor, value: u64, width: usize, data: &mut Vec<u8>) -> Result<()> {
        let above = if width < 8 { value as i64 >> (8 * width - 1) } else { 0 };
        // The bits of FLOAT16 and the like are unsigned, as are the numbers of UINT8.
        if !matches!(above, -1..=1) {
            let problem = format!("an entry of {} is {}", tensor.element.field().name(), value as i64);
            return Err(Error::malformed(self.path(), place(tensor), problem, EXPORT_AGAIN));
        }
        data.extend_from_slice(&value.to_le_bytes()[..width]);
        Ok(())
    }
}

const EXPORT_AGAIN: &str = "export the model again, with raw_data and as FLOAT or FLOAT16";

fn place(tensor: &OnnxTensor) -> String {
    match tensor.name.as_str() {
        "" => format!("TensorProto at byte {}", tensor.message.start),
        name => format!("tensor {}", quoted(name)),
    }
}
