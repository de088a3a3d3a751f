//! onnxruntime's adapter file (`.onnx_adapter`): values for inputs of a model by name, chosen for each run.
//!
//! It is a FlatBuffers buffer with the identifier `TORT`, of the schema onnxruntime/lora/adapter_format:
//!
//! ```text
//! Adapter:   format_version, adapter_version, model_version, [Parameter]
//! Parameter: name, dims [int64], data_type (ONNX's numbers), raw_data [uint8] aligned to 8 bytes
//! ```
//!
//! The buffer is laid out by hand: all sizes are known before the values are, and a builder would hold all
//! values in memory. Offsets count forward from their own position, except those from a table back to its
//! vtable.

use std::collections::BTreeSet;

use super::tensor::elements;
use super::write::{NewOnnxTensor, OnnxPlace};
use crate::error::{Error, Result, quoted};

/// The version of the format that onnxruntime reads.
const FORMAT_VERSION: i32 = 1;
/// Offsets are signed 32-bit integers.
const MAX_BYTES: u64 = i32::MAX as u64;
/// Offsets of the vtables: after the root's offset and the identifier, and after the root table.
const ROOT_VTABLE: u64 = 8;
const ROOT: u64 = ROOT_VTABLE + VTABLE_BYTES;
const PARAMETER_VTABLE: u64 = ROOT + TABLE_BYTES;
const PARAMETERS: u64 = PARAMETER_VTABLE + VTABLE_BYTES;
/// Both tables have four fields of four bytes after the offset to their vtable.
const TABLE_BYTES: u64 = 20;
const VTABLE_BYTES: u64 = 12;

/// The bytes of an adapter around the values of its parameters, and where these go.
#[derive(Clone, Debug)]
pub struct OnnxAdapterLayout {
    frame: Vec<(u64, Vec<u8>)>,
    places: Vec<OnnxPlace>,
    file_bytes: u64,
}

impl OnnxAdapterLayout {
    /// Lays out an adapter of these versions, which the user chooses. Each parameter has the name of its
    /// input. Values that are given become part of the frame.
    ///
    /// # Errors
    /// [`Error::Encode`] for a name used twice, texts, values that do not fit their shape, and more than 2
    /// GB.
    pub fn new(adapter_version: i32, model_version: i32, parameters: &[NewOnnxTensor]) -> Result<Self> {
        let mut names = BTreeSet::new();
        let table = |at: u64, vtable: u64, fields: [u32; 4]| {
            let mut bytes = ((at - vtable) as i32).to_le_bytes().to_vec();
            bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            bytes
        };
        // First the sizes and offsets of the tables, then the tables.
        let mut end = PARAMETERS + 4 + 4 * parameters.len() as u64;
        let (mut offsets, mut bodies, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for parameter in parameters {
            let place = format!("parameter {}", quoted(&parameter.name));
            if !names.insert(&parameter.name) {
                return Err(Error::encode(place, "the name is taken", "give each parameter its own name"));
            }
            let count = elements(&parameter.dims);
            let bytes = count.and_then(|count| parameter.element.bytes_for(count)).ok_or_else(|| {
                let problem = format!("shape {:?} of {} cannot be stored", parameter.dims, parameter.element);
                Error::encode(&place, problem, "choose another shape or type")
            })?;
            let start = end.next_multiple_of(4);
            let name = start + TABLE_BYTES;
            let dims = lengths_place(name + 4 + parameter.name.len() as u64 + 1);
            let raw = lengths_place(dims + 4 + 8 * parameter.dims.len() as u64);
            end = (raw + 4).saturating_add(bytes);
            if end > MAX_BYTES {
                let problem = format!("it would have more than {MAX_BYTES} bytes");
                return Err(Error::encode(
                    "adapter",
                    problem,
                    "adapt fewer matrices, or choose a lower rank",
                ));
            }
            let field = |number: u64, to: u64| (to - (start + 4 + 4 * number)) as u32;
            let fields = [field(0, name), field(1, dims), parameter.element.id() as u32, field(3, raw)];
            let mut body = table(start, PARAMETER_VTABLE, fields);
            body.extend((parameter.name.len() as u32).to_le_bytes());
            body.extend(parameter.name.as_bytes());
            body.resize((dims - start) as usize, 0);
            body.extend((parameter.dims.len() as u32).to_le_bytes());
            body.extend(parameter.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            body.resize((raw - start) as usize, 0);
            body.extend((bytes as u32).to_le_bytes());
            if let Some(values) = &parameter.values {
                if values.len() as u64 != bytes {
                    let problem = format!("{} bytes, but its shape takes {bytes}", values.len());
                    return Err(Error::encode(place, problem, "report this as a bug"));
                }
                body.extend(values);
            }
            offsets.push((start - (PARAMETERS + 4 + 4 * offsets.len() as u64)) as u32);
            bodies.push((start, body));
            places.push(OnnxPlace { external: false, offset: raw + 4, bytes });
        }
        let vtable: Vec<u8> = [VTABLE_BYTES as u16, TABLE_BYTES as u16, 4, 8, 12, 16]
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        let mut head = (ROOT as u32).to_le_bytes().to_vec();
        head.extend(b"TORT");
        head.extend(&vtable);
        let to_parameters = (PARAMETERS - (ROOT + 4 + 4 * 3)) as u32;
        let versions = [FORMAT_VERSION, adapter_version, model_version].map(|version| version as u32);
        head.extend(table(ROOT, ROOT_VTABLE, [versions[0], versions[1], versions[2], to_parameters]));
        head.extend(&vtable);
        head.extend((parameters.len() as u32).to_le_bytes());
        head.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        let mut frame = vec![(0, head)];
        frame.extend(bodies);
        // The reader needs whole words.
        let file_bytes = end.next_multiple_of(8);
        frame.push((end, vec![0; (file_bytes - end) as usize]));
        Ok(OnnxAdapterLayout { frame, places, file_bytes })
    }

    /// The known bytes of the file, by offset; zeros lie between them.
    pub fn frame(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.frame.iter().map(|(offset, bytes)| (*offset, bytes.as_slice()))
    }

    /// Where the values of each parameter go, in their order.
    pub fn places(&self) -> &[OnnxPlace] {
        &self.places
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

/// The first place from `end` for the length of a vector, such that its entries are aligned to 8 bytes.
fn lengths_place(end: u64) -> u64 {
    (end + 4).next_multiple_of(8) - 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ElementType;

    fn tensor(name: &str, dims: &[u64], values: Option<Vec<u8>>) -> NewOnnxTensor {
        NewOnnxTensor { name: name.into(), element: ElementType::FLOAT, dims: dims.to_vec(), values }
    }

    /// The whole file, with ones for values that come later.
    fn file(parameters: &[NewOnnxTensor]) -> Vec<u8> {
        let layout = OnnxAdapterLayout::new(7, 8, parameters).unwrap();
        let mut file = vec![0; layout.file_bytes() as usize];
        for (offset, bytes) in layout.frame() {
            file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        for (place, _) in layout.places().iter().zip(parameters).filter(|(_, p)| p.values.is_none()) {
            file[place.offset as usize..][..place.bytes as usize].fill(1);
        }
        file
    }

    /// A table's field, as a reader finds it.
    fn field(file: &[u8], table: usize, number: usize) -> usize {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let vtable = table - word(table);
        let entry = vtable + 4 + 2 * number;
        table + usize::from(u16::from_le_bytes(file[entry..entry + 2].try_into().unwrap()))
    }

    #[test]
    fn readers_find_what_was_laid_out() {
        let given: Vec<u8> = (0..24).collect();
        let parameters = [
            tensor("a.lora_A.weight", &[2, 3], Some(given.clone())),
            tensor("b", &[5, 1], None),
            tensor("none", &[4, 0], None),
        ];
        let file = file(&parameters);
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let follow = |at: usize| at + word(at);
        assert_eq!(&file[4..8], b"TORT");
        let root = follow(0);
        assert_eq!([0, 1, 2].map(|number| word(field(&file, root, number))), [1, 7, 8]);
        let list = follow(field(&file, root, 3));
        assert_eq!(word(list), 3);
        for (index, parameter) in parameters.iter().enumerate() {
            let table = follow(list + 4 + 4 * index);
            let vector = |number: usize| follow(field(&file, table, number));
            let name = vector(0);
            assert_eq!(&file[name + 4..][..word(name)], parameter.name.as_bytes());
            assert_eq!(file[name + 4 + word(name)], 0);
            let dims = vector(1);
            let (words, _) = file[dims + 4..][..8 * word(dims)].as_chunks::<8>();
            assert_eq!(words.iter().map(|w| u64::from_le_bytes(*w)).collect::<Vec<_>>(), parameter.dims);
            assert_eq!(word(field(&file, table, 2)), 1);
            let raw = vector(3);
            assert_eq!([(dims + 4) % 8, (raw + 4) % 8, table % 4, name % 4], [0; 4]);
            let bytes = &file[raw + 4..][..word(raw)];
            match &parameter.values {
                Some(values) => assert_eq!(bytes, values),
                None => {
                    assert!(bytes.iter().all(|&b| b == 1) && bytes.len() == if index == 1 { 20 } else { 0 })
                }
            }
        }
    }

    #[test]
    fn what_no_reader_would_take_is_refused() {
        let refused = |parameters: &[NewOnnxTensor], says: &str| {
            let error = OnnxAdapterLayout::new(1, 1, parameters).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        refused(&[tensor("a", &[1], None), tensor("a", &[2], None)], "the name is taken");
        refused(&[tensor("a", &[1 << 30], None)], "more than 2147483647 bytes");
        refused(&[tensor("a", &[1 << 40, 1 << 40], None)], "cannot be stored");
        refused(&[tensor("a", &[1], Some(vec![0; 3]))], "3 bytes, but its shape takes 4");
    }
}
