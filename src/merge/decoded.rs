//! Merging a Hugging Face folder that another program quantized: into a folder with the numbers that the codes
//! stand for, in the half precision of its other tensors unless another type is asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFolder, Piece, Pieces};
use curmerge_formats::quant;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout, shard_name};
use curmerge_formats::shards::groups;

use super::adapted::Adapted;
use super::report::{MergeReport, TensorReport};
use super::storage::{self, Storage};
use super::{Merge, deltas, folder};
use crate::base::folder::{CONFIG, Folder, SAFETENSORS_INDEX};
use crate::base::quantized::SETTINGS_BESIDE;
use crate::base::{Base, BaseTensor, Weight};
use crate::chat::templates;
use crate::convert::config_json::{pretty, torch_name};
use crate::error::CallerOption;
use crate::rewrite::{self, ComputedTensor, ComputedTensors, Hooks, Writer, in_blocks};
use crate::{Error, Result};

/// A tensor that is not copied.
enum Changed<'a> {
    /// Adapters change it.
    Adapted(Adapted<'a>),
    /// Its numbers, in this type.
    Decoded { name: &'a str, weight: Weight<'a>, dtype: DType, path: &'a Path },
}

impl ComputedTensor for Changed<'_> {
    /// The report on an adapted tensor.
    type Outcome = Option<TensorReport>;

    fn dtype(&self) -> DType {
        match self {
            Changed::Adapted(adapted) => adapted.dtype,
            Changed::Decoded { dtype, .. } => *dtype,
        }
    }

    fn compute(&self, put: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>) -> Result<Self::Outcome> {
        let Changed::Decoded { name, weight, dtype, path } = self else {
            let Changed::Adapted(adapted) = self else { return Ok(None) };
            return adapted.compute(put).map(Some);
        };
        let (stored, _) = weight.as_stored();
        let cols = stored.cols();
        let encoded = |rows: std::ops::Range<usize>| {
            let mut values = vec![0.0; rows.len() * cols];
            stored.decode_rows(rows.clone(), &mut values);
            let mut bytes = vec![0; dtype.bytes_for(values.len() as u64).unwrap_or(0) as usize];
            quant::encode(*dtype, &values, &mut bytes).map_err(|error| {
                let place = format!("tensor '{name}', rows from {}", rows.start);
                let help = "store the tensors in another type, such as f32";
                Error::input(*path, place, error.to_string(), help).avoidable(CallerOption::Storage)
            })?;
            Ok(bytes)
        };
        in_blocks([stored.rows(), cols], encoded, |bytes| put(0, bytes))?;
        Ok(None)
    }
}

/// A tensor of the output.
struct Entry<'a> {
    file: usize,
    stored: &'a SafeTensor,
    /// What the base makes of it: its name without codes.
    tensor: &'a BaseTensor,
    /// Its shape in the output. Codes have another shape than their matrix; of what is plain, the base may have
    /// another view.
    shape: Vec<u64>,
}

/// Writes the merged folder.
pub(super) fn write(
    merge: &Merge<'_>,
    files: &[SafeTensors],
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let base = merge.base;
    refuse_transposed(base)?;
    let wanted = match merge.options.storage {
        Storage::Only(dtype) => dtype,
        _ => half_type(base),
    };
    let deltas = deltas::by_stored_tensor(base, &merge.deltas);
    let mut new = ComputedTensors::default();
    for (name, tensor) in base.tensors() {
        if new.get(&tensor.stored_name).is_some() {
            // Another of the matrices that it joins.
            continue;
        }
        let joined = tensor.slice.is_some();
        let changed = match deltas.get(tensor.stored_name.as_str()) {
            Some(deltas) => {
                let mut adapted = merge.adapted(name, deltas)?;
                if joined {
                    folder::refuse_joined(merge, tensor)?;
                    folder::adapt_joined(&mut adapted, base)?;
                }
                let storage = if tensor.is_plain() { merge.options.storage } else { Storage::Only(wanted) };
                adapted.dtype = storage::choose(storage, base, tensor, &adapted)?;
                Changed::Adapted(adapted)
            }
            None if tensor.is_plain() => continue,
            None => {
                let weight = if joined { base.stored_weight(name)? } else { base.weight(name)? };
                Changed::Decoded { name, weight, dtype: wanted, path: base.path() }
            }
        };
        new.replace([tensor.stored_name.as_str()], changed);
    }
    let in_container = |tensor: &'_ BaseTensor| {
        tensor.quantized.as_ref().map_or(&tensor.stored_name, |quantized| &quantized.codes_name).clone()
    };
    let by_name: HashMap<_, _> =
        base.tensors().values().map(|tensor| (in_container(tensor), tensor)).collect();
    let entries: Vec<Entry<'_>> = files
        .iter()
        .enumerate()
        .flat_map(|(file, shard)| shard.tensors().iter().map(move |stored| (file, stored)))
        .filter_map(|(file, stored)| {
            let tensor = *by_name.get(&stored.name)?;
            let mut shape = if tensor.is_plain() { &stored.shape } else { &tensor.shape }.clone();
            if let Some(slice) = tensor.slice.as_ref().filter(|_| !tensor.is_plain()) {
                shape[0] = slice.of;
            }
            Some(Entry { file, stored, tensor, shape })
        })
        .collect();
    let shards = shards(files, &entries, &new, merge.options.max_shard_size)?;
    let mut reports = Vec::new();
    let (mut done, count) = (0, new.len() as u64);
    let hooks = Hooks {
        confirm,
        done: &mut |_, report| {
            reports.extend(report);
            done += 1;
            progress(done, count);
        },
    };
    let mut writer = Writer::new(&new, hooks);
    let destination = merge.folder()?;
    let folder = OutputFolder::create(destination.path, &destination.inputs, destination.force)?;
    folder.must_fit(shards.iter().map(|shard| shard.pieces.bytes()).sum())?;
    for shard in &shards {
        let file = folder.file(&shard.name)?;
        writer.write(&shard.pieces, &file)?;
        file.commit()?;
    }
    if shards.len() > 1 {
        let bytes = entries.iter().map(|entry| new_bytes(entry, &new)).fold(0, u64::saturating_add);
        let map = shards.iter().flat_map(|shard| shard.names.iter().map(|name| (*name, shard.name.clone())));
        let index = rewrite::shard_index_text(base.path(), &map.collect(), bytes)?;
        folder.write(SAFETENSORS_INDEX, index.as_bytes())?;
    }
    folder.write(CONFIG, config(base.path(), wanted)?.as_bytes())?;
    let companions = rewrite::copy_folder(base.path(), &folder, 0, destination.card.as_deref(), |path| {
        let made = [CONFIG, SAFETENSORS_INDEX].into_iter().chain(SETTINGS_BESIDE);
        made.into_iter().any(|name| path == base.path().join(name))
            || files.iter().any(|file| file.path() == path)
    })?;
    destination.chat_template.map_or(Ok(()), |source| templates::set_in_folder(&folder, source))?;
    folder.commit()?;
    let method = base.decoded_codes_of().unwrap_or_default();
    let notes =
        vec![format!("the base is quantized by {method}; the merged folder has its numbers in {wanted}")];
    Ok(MergeReport { model: merge.out.into(), tensors: reports, companions, notes, ..Default::default() })
}

/// A file of the output.
struct Shard<'a> {
    name: String,
    names: Vec<&'a str>,
    pieces: Pieces<'a>,
}

/// Refuses a matrix that the folder would store as `[in, out]`.
fn refuse_transposed(base: &Base) -> Result<()> {
    let names = |tensor: &BaseTensor| {
        let stem = tensor.stored_name.strip_suffix(".weight").unwrap_or(&tensor.stored_name).to_owned();
        base.architecture().of_hugging_face(&stem).is_some_and(|(_, names)| names.transposed)
    };
    let quantized = base.tensors().values().filter(|tensor| !tensor.is_plain());
    match quantized.into_iter().find(|tensor| names(tensor)) {
        None => Ok(()),
        Some(tensor) => {
            let place = format!("tensor '{}'", tensor.stored_name.escape_debug());
            let problem = "a folder of this architecture has the transpose, which is not written of codes";
            Err(Error::input(base.path(), place, problem, "give the output a name that ends in .gguf"))
        }
    }
}

/// The half precision of what is not quantized; BF16 without any.
fn half_type(base: &Base) -> DType {
    let plain = base.tensors().values().filter(|tensor| tensor.is_plain() && tensor.shape.len() > 1);
    let mut dtypes = plain.map(|tensor| tensor.dtype);
    dtypes.find(|dtype| matches!(dtype, DType::F16 | DType::BF16)).unwrap_or(DType::BF16)
}

/// Bytes of a tensor in the output. One that overflows is refused when the file is laid out.
fn new_bytes(entry: &Entry<'_>, new: &ComputedTensors<'_, Changed<'_>>) -> u64 {
    match new.get(&entry.tensor.stored_name) {
        Some((new, _)) => new.dtype().bytes_for(entry.shape.iter().product()).unwrap_or(0),
        None => entry.stored.bytes,
    }
}

/// The base's own files, or shards of limited size.
fn shards<'a>(
    files: &'a [SafeTensors],
    entries: &[Entry<'a>],
    new: &ComputedTensors<'a, Changed<'a>>,
    limit: Option<u64>,
) -> Result<Vec<Shard<'a>>> {
    let own_name = |file: usize| {
        // It was opened by a name that is UTF-8.
        files[file].path().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
    };
    let grouped: Vec<(String, Vec<&Entry<'a>>)> = match limit {
        None => {
            let mut by_file: BTreeMap<usize, Vec<&Entry<'a>>> = BTreeMap::new();
            entries.iter().for_each(|entry| by_file.entry(entry.file).or_default().push(entry));
            by_file.into_iter().map(|(file, own)| (own_name(file), own)).collect()
        }
        Some(limit) => {
            let groups = groups(entries.iter().map(|entry| new_bytes(entry, new)), limit);
            let count = groups.len();
            let named = |(number, group): (usize, std::ops::Range<usize>)| {
                (shard_name(number, count), entries[group].iter().collect())
            };
            groups.into_iter().enumerate().map(named).collect()
        }
    };
    let mut metadata = BTreeMap::new();
    for (key, text) in files.iter().flat_map(|file| file.metadata()) {
        metadata.entry(key.clone()).or_insert_with(|| text.clone());
    }
    let alone = grouped.len() == 1;
    let shard = |(name, mut own): (String, Vec<&Entry<'a>>)| {
        // A shard without an index is not found.
        let name = if alone { shard_name(0, 1) } else { name };
        let dtype = |entry: &Entry<'_>| {
            new.get(&entry.tensor.stored_name).map_or(entry.stored.dtype, |(new, _)| new.dtype())
        };
        // Widest elements first, so that every tensor is aligned to its own.
        own.sort_by_key(|entry| Reverse(dtype(entry).block_bytes()));
        let headers = own.iter().map(|entry| NewSafeTensor {
            name: entry.tensor.stored_name.clone(),
            dtype: dtype(entry),
            shape: entry.shape.clone(),
        });
        let layout = SafeTensorsLayout::new(&metadata, headers.collect())?;
        let placed = own.iter().zip(layout.tensors()).map(|(entry, place)| {
            let (source, len) = (files[entry.file].file(), entry.stored.bytes);
            let stored = Piece::Copy { source, offset: entry.stored.offset, len };
            (place.offset, new.piece(&entry.tensor.stored_name, place.bytes, stored))
        });
        let pieces = Pieces::laid_out(layout.header(), placed, layout.file_bytes());
        Ok(Shard { name, names: own.iter().map(|entry| entry.tensor.stored_name.as_str()).collect(), pieces })
    };
    grouped.into_iter().map(shard).collect()
}

/// config.json of the output: the base's, without what says how its weights are quantized.
fn config(base: &Path, dtype: DType) -> Result<String> {
    let mut config = Folder::new(base).config()?;
    config.remove("quantization_config");
    let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    config.insert(key.into(), torch_name(dtype).into());
    Ok(pretty(&config.into()))
}
