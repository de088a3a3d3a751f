//! Merging a Hugging Face folder that another program quantized: into a folder with the numbers that the codes
//! stand for, in bfloat16 unless another type is asked for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use curmerge_formats::dtype::DType;
use curmerge_formats::output::{OutputFile, OutputFolder, Piece, Pieces};
use curmerge_formats::quant;
use curmerge_formats::safetensors::{NewSafeTensor, SafeTensor, SafeTensors, SafeTensorsLayout, shard_name};
use curmerge_formats::shards::groups;
use serde_json::json;

use super::Merge;
use super::adapted::Adapted;
use super::report::{MergeReport, TensorReport};
use super::storage::{self, Storage};
use crate::base::folder::{CONFIG, Folder, SAFETENSORS_INDEX};
use crate::base::quantized::SETTINGS_BESIDE;
use crate::base::{BaseTensor, Weight};
use crate::chat::templates;
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
    /// What the base makes of it: its name without codes, and its shape.
    tensor: &'a BaseTensor,
}

/// Writes the merged folder.
pub(super) fn write(
    merge: &Merge<'_>,
    files: &[SafeTensors],
    confirm: Option<&dyn Fn() -> Result<()>>,
    progress: impl Fn(u64, u64),
) -> Result<MergeReport> {
    let base = merge.base;
    let wanted = match merge.options.storage {
        Storage::Only(dtype) => dtype,
        _ => DType::BF16,
    };
    let mut new = ComputedTensors::default();
    for (name, tensor) in base.tensors() {
        let changed = match merge.deltas.get(name.as_str()) {
            Some(deltas) => {
                let mut adapted = merge.adapted(name, deltas)?;
                let storage = if tensor.is_plain() { merge.options.storage } else { Storage::Only(wanted) };
                adapted.dtype = storage::choose(storage, base, tensor, &adapted)?;
                Changed::Adapted(adapted)
            }
            None if tensor.is_plain() => continue,
            None => Changed::Decoded { name, weight: base.weight(name)?, dtype: wanted, path: base.path() },
        };
        new.replace([tensor.stored_name.as_str()], changed);
    }
    let places: HashMap<_, _> = base.tensors().values().map(|t| ((t.file, t.offset, t.bytes), t)).collect();
    let entries: Vec<Entry<'_>> = files
        .iter()
        .enumerate()
        .flat_map(|(file, shard)| shard.tensors().iter().map(move |stored| (file, stored)))
        .filter_map(|(file, stored)| {
            let tensor = places.get(&(file, stored.offset, stored.bytes))?;
            Some(Entry { file, stored, tensor })
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
    let destination = merge.destination();
    let folder = OutputFolder::create(destination.path, &destination.inputs, destination.force)?;
    folder.must_fit(shards.iter().map(|shard| shard.pieces.bytes()).sum())?;
    for shard in &shards {
        let file = folder.file(&shard.name)?;
        writer.write(&shard.pieces, &file)?;
        file.commit()?;
    }
    if shards.len() > 1 {
        let map = shards.iter().flat_map(|shard| shard.names.iter().map(|name| (*name, shard.name.clone())));
        let bytes = shards.iter().map(|shard| shard.pieces.bytes()).sum();
        let index = rewrite::shard_index_text(base.path(), &map.collect(), bytes)?;
        write_text(&folder, SAFETENSORS_INDEX, &index)?;
    }
    write_text(&folder, CONFIG, &config(base.path(), wanted)?)?;
    let companions = rewrite::copy_companions(base.path(), &folder, |path| {
        path == Path::new(CONFIG) || SETTINGS_BESIDE.iter().any(|name| path == Path::new(name))
    })?;
    destination.chat_template.map_or(Ok(()), |source| templates::set_in_folder(&folder, source))?;
    folder.commit()?;
    let method = base.quantized_by().unwrap_or_default();
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
            let size = |entry: &Entry<'_>| match new.get(&entry.tensor.stored_name) {
                Some((new, _)) => new.dtype().bytes_for(entry.tensor.shape.iter().product()).unwrap_or(0),
                None => entry.stored.bytes,
            };
            let groups = groups(entries.iter().map(size), limit);
            let count = groups.len();
            let named = |(number, group): (usize, std::ops::Range<usize>)| {
                (shard_name(number, count), entries[group].iter().collect())
            };
            groups.into_iter().enumerate().map(named).collect()
        }
    };
    let shard = |(name, mut own): (String, Vec<&Entry<'a>>)| {
        let dtype = |entry: &Entry<'_>| {
            new.get(&entry.tensor.stored_name).map_or(entry.stored.dtype, |(new, _)| new.dtype())
        };
        // Widest elements first, so that every tensor is aligned to its own.
        own.sort_by_key(|entry| Reverse(dtype(entry).block_bytes()));
        let headers = own.iter().map(|entry| NewSafeTensor {
            name: entry.tensor.stored_name.clone(),
            dtype: dtype(entry),
            shape: entry.tensor.shape.clone(),
        });
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
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
    let name = match dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        _ => "bfloat16",
    };
    let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    config.insert(key.into(), json!(name));
    let text = serde_json::to_string_pretty(&config);
    let text = text.map_err(|e| Error::request(format!("config.json: {e}"), "report this as a bug"))?;
    Ok(text + "\n")
}

fn write_text(folder: &OutputFolder, name: &str, text: &str) -> Result<()> {
    let mut file = OutputFile::create(&folder.path().join(name), &[])?;
    file.append(text.as_bytes())?;
    Ok(file.commit()?)
}
