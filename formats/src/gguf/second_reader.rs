//! A second reader for GGUF headers: the crate `gguf-rs`, compared with ours.
//!
//! Two programs that read the same bytes and agree are better evidence than one. `gguf-rs` shares no code
//! with this crate, so it finds mistakes of ours as well as damage that only one of the two accepts. The
//! parent module says why it is only a second reader.
//!
//! It reads only after [`Gguf::open`] has accepted the file, and from a copy of the header, so that no count
//! in the file can send it past the header's end. Three of its habits need care:
//!
//! - It stops at a tensor type that it does not know, and panics at id 40, which is NVFP4 today. The copy has
//!   F32's id there, and the comparison leaves the type out and says so.
//! - It replaces an alignment that is not a multiple of 8 by 32. The comparison leaves the start of the data
//!   out and says so.
//! - It holds every metadata value as JSON, about 100 bytes each. Headers beyond [`MAX_VALUES`] or
//!   [`MAX_HEADER`] are refused before it starts.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gguf_rs::{ByteOrder, GGMLType, GGUFContainer, GGUFModel};
use serde_json::Value as Json;

use super::{Array, Gguf, GgufTensor, Value};
use crate::error::{Error, Result, one_line, quoted};

/// Metadata values, array elements included, that are handed to `gguf-rs`: a few times the largest
/// vocabulary.
const MAX_VALUES: usize = 1 << 22;

/// Header bytes that are handed to `gguf-rs`.
const MAX_HEADER: usize = 256 << 20;

/// The bytes of `GGUF`, which `gguf-rs` expects its caller to have read.
const MAGIC: usize = 4;

/// What a second reader says of a file that ours accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecondOpinion {
    /// Tensors that were compared: name, shape, type and offset.
    pub tensors: usize,
    /// Metadata keys that were compared.
    pub keys: usize,
    /// Where the readers disagree.
    pub disagreements: Vec<Disagreement>,
    /// What the second reader does not know and the comparison leaves out, one line each.
    pub unknown: Vec<String>,
}

/// One thing that two readers see differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Disagreement {
    /// The tensor or key, or `whole file`.
    pub place: String,
    /// What our reader sees.
    pub ours: String,
    /// What the second reader sees.
    pub theirs: String,
}

impl SecondOpinion {
    fn disagree(&mut self, place: impl Into<String>, ours: impl Into<String>, theirs: impl Into<String>) {
        self.disagreements.push(Disagreement {
            place: place.into(),
            ours: ours.into(),
            theirs: theirs.into(),
        });
    }

    /// Notes a disagreement unless both readers see the same.
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, place: &str, what: &str, ours: &T, theirs: &T) {
        if ours != theirs {
            self.disagree(place, format!("{what} {ours:?}"), format!("{what} {theirs:?}"));
        }
    }
}

/// Reads the header of `file` with `gguf-rs`, and compares names, shapes, types, offsets and metadata with
/// ours. The order of keys, the widths of integers and the sizes of tensors are not compared: `gguf-rs` does
/// not keep the first two, and computes wrong sizes for integers, BF16, IQ4_NL and MXFP4.
///
/// # Errors
/// [`Error::Unsupported`] for a header so large that `gguf-rs` would need gigabytes for it.
pub fn second_opinion(file: &Gguf) -> Result<SecondOpinion> {
    check_size(file)?;
    let mut opinion = SecondOpinion::default();
    let header = known_header(file, &mut opinion);
    let mut container = GGUFContainer::new(ByteOrder::LE, Box::new(Cursor::new(header)), u64::MAX);
    match catch_unwind(AssertUnwindSafe(|| container.decode())) {
        Ok(Ok(theirs)) => compare(file, &theirs, &mut opinion),
        Ok(Err(refused)) => opinion.disagree("whole file", "a sound file", one_line(&refused)),
        Err(_) => opinion.disagree("whole file", "a sound file", "gguf-rs panicked"),
    }
    Ok(opinion)
}

/// Refuses what `gguf-rs` would need too much memory for.
fn check_size(file: &Gguf) -> Result<()> {
    let values = file.metadata().iter().map(|(_, value)| match value {
        Value::Array(array) => array.len(),
        _ => 1,
    });
    let (values, bytes) = (values.sum::<usize>(), file.header_bytes());
    if values <= MAX_VALUES && bytes <= MAX_HEADER {
        return Ok(());
    }
    let problem = format!(
        "{bytes} bytes with {values} values are too much for gguf-rs, which gets at most {MAX_HEADER} bytes with \
         {MAX_VALUES} values"
    );
    Err(Error::unsupported(file.path(), "header", problem, "inspect the file without a second opinion"))
}

/// The header without its magic, with F32's id in place of the types that `gguf-rs` does not know.
fn known_header(file: &Gguf, opinion: &mut SecondOpinion) -> Vec<u8> {
    let mut header = file.bytes()[MAGIC..file.header_bytes()].to_vec();
    let mut end = header.len();
    for tensor in file.tensors().iter().rev() {
        if !knows_type(tensor) {
            // An entry ends with its type, a u32, and its offset, a u64.
            header[end - 12..end - 8].copy_from_slice(&0u32.to_le_bytes());
            opinion.unknown.push(format!("{}: gguf-rs does not know type {}", place(tensor), tensor.dtype));
        }
        // Name length, name, dimension count, dimensions, type, offset.
        end -= 8 + tensor.name.len() + 4 + 8 * tensor.dims.len() + 4 + 8;
    }
    opinion.unknown.reverse();
    header
}

fn knows_type(tensor: &GgufTensor) -> bool {
    let known = tensor.dtype.ggml_id().and_then(|id| GGMLType::try_from(id).ok());
    !matches!(known, None | Some(GGMLType::Count))
}

fn place(tensor: &GgufTensor) -> String {
    format!("tensor {}", quoted(&tensor.name))
}

fn compare(file: &Gguf, theirs: &GGUFModel, opinion: &mut SecondOpinion) {
    opinion.compare("whole file", "version", &format!("v{}", file.version()), &theirs.get_version());
    compare_metadata(file, theirs, opinion);
    if file.alignment().is_multiple_of(8) {
        opinion.compare("data", "start at byte", &file.data_start(), &theirs.data_offset());
    } else {
        opinion.unknown.push(format!("data: gguf-rs does not know an alignment of {}", file.alignment()));
    }
    opinion.compare("tensors", "count", &file.tensors().len(), &theirs.tensors().len());
    for (ours, theirs) in file.tensors().iter().zip(theirs.tensors()) {
        let place = place(ours);
        opinion.tensors += 1;
        opinion.compare(&place, "name", &quoted(&ours.name), &quoted(&theirs.name));
        opinion.compare(&place, "dimensions", &ours.dims, &theirs.shape);
        opinion.compare(&place, "offset", &(ours.offset - file.data_start()), &theirs.offset);
        if knows_type(ours) {
            opinion.compare(&place, "type", &ours.dtype.ggml_id(), &Some(theirs.kind));
        }
    }
}

fn compare_metadata(file: &Gguf, theirs: &GGUFModel, opinion: &mut SecondOpinion) {
    for (key, value) in file.metadata() {
        opinion.keys += 1;
        let place = format!("key {}", quoted(key));
        match theirs.metadata().get(key) {
            Some(json) if is_same(value, json) => {}
            Some(json) => opinion.disagree(place, shown(value), quoted(&json.to_string())),
            None => opinion.disagree(place, shown(value), "no such key"),
        }
    }
    let others = theirs.metadata().keys().filter(|key| file.get(key).is_none());
    for key in others {
        opinion.disagree(format!("key {}", quoted(key)), "no such key", "a value");
    }
}

/// Our value as a disagreement shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("{} values, {}", array.len(), value.type_name()),
        _ => quoted(&format!("{value:?}")),
    }
}

/// Whether `gguf-rs` read the value that we read. JSON has no infinities and no NaN; `gguf-rs` has null for
/// them.
fn is_same(ours: &Value, theirs: &Json) -> bool {
    match ours {
        Value::Bool(ours) => theirs.as_bool() == Some(*ours),
        Value::String(ours) => theirs.as_str() == Some(ours),
        Value::F32(ours) => is_f32(*ours, theirs),
        Value::F64(ours) => is_f64(*ours, theirs),
        Value::Array(ours) => theirs.as_array().is_some_and(|theirs| is_same_array(ours, theirs)),
        Value::U8(ours) => theirs.as_u64() == Some((*ours).into()),
        Value::U16(ours) => theirs.as_u64() == Some((*ours).into()),
        Value::U32(ours) => theirs.as_u64() == Some((*ours).into()),
        Value::U64(ours) => theirs.as_u64() == Some(*ours),
        Value::I8(ours) => theirs.as_i64() == Some((*ours).into()),
        Value::I16(ours) => theirs.as_i64() == Some((*ours).into()),
        Value::I32(ours) => theirs.as_i64() == Some((*ours).into()),
        Value::I64(ours) => theirs.as_i64() == Some(*ours),
    }
}

fn is_same_array(ours: &Array, theirs: &[Json]) -> bool {
    fn all<T>(ours: &[T], theirs: &[Json], is_same: impl Fn(&T, &Json) -> bool) -> bool {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
    }
    fn unsigned<T: Copy + Into<u64>>(ours: &[T], theirs: &[Json]) -> bool {
        all(ours, theirs, |&ours, theirs| theirs.as_u64() == Some(ours.into()))
    }
    fn signed<T: Copy + Into<i64>>(ours: &[T], theirs: &[Json]) -> bool {
        all(ours, theirs, |&ours, theirs| theirs.as_i64() == Some(ours.into()))
    }
    match ours {
        Array::U8(ours) => unsigned(ours, theirs),
        Array::U16(ours) => unsigned(ours, theirs),
        Array::U32(ours) => unsigned(ours, theirs),
        Array::U64(ours) => unsigned(ours, theirs),
        Array::I8(ours) => signed(ours, theirs),
        Array::I16(ours) => signed(ours, theirs),
        Array::I32(ours) => signed(ours, theirs),
        Array::I64(ours) => signed(ours, theirs),
        Array::F32(ours) => all(ours, theirs, |&ours, theirs| is_f32(ours, theirs)),
        Array::F64(ours) => all(ours, theirs, |&ours, theirs| is_f64(ours, theirs)),
        Array::Bool(ours) => all(ours, theirs, |&ours, theirs| theirs.as_bool() == Some(ours)),
        Array::String(ours) => all(ours, theirs, |ours, theirs| theirs.as_str() == Some(ours)),
    }
}

fn is_f32(ours: f32, theirs: &Json) -> bool {
    // JSON holds the shortest decimal fraction or the f64 of the same value: either rounds back to the f32.
    if ours.is_finite() {
        theirs.as_f64().map(|theirs| theirs as f32) == Some(ours)
    } else {
        theirs.is_null()
    }
}

fn is_f64(ours: f64, theirs: &Json) -> bool {
    if ours.is_finite() { theirs.as_f64() == Some(ours) } else { theirs.is_null() }
}
