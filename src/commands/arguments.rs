//! Options that several commands share.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use curmerge_formats::dtype::DType;
use curmerge_formats::imatrix::Imatrix;

use crate::base::Base;
use crate::convert::FileType;
use crate::cur::{Selection, SelectionOptions};
use crate::kernels::Precision;
use crate::merge::{MergeOptions, Storage};
use crate::{Error, compressed};

/// Which matrices a new adapter changes, and through which of their columns and rows.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    /// Columns and rows of each matrix; U has rank * rank numbers. For a LoRA, rows of A and columns of B.
    /// `auto`, for build: what does best in short trials.
    #[arg(long, default_value_t = Choice::Given(DEFAULT_RANK), value_name = "N|auto", value_parser = parse_rank)]
    pub rank: Choice<u32>,
    /// Matrices to adapt, separated by commas: q k v o gate up down, in linear attention also
    /// qkv z beta alpha, of LFM2 also in, all (but beta and alpha), or canonical names. A fused
    /// matrix can be named, or its parts, such as `blk.0.attn_qkv[q]`. If the model's architecture is
    /// not known, any matrix can be named. `auto`, for build: q,k,v or all, by short trials.
    #[arg(long, default_value = "all")]
    pub targets: String,
    /// Only matrices of these blocks, counted from 0, such as 24-29. The output of the blocks below
    /// is computed once for all epochs.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_layers)]
    pub layers: Option<LayerRange>,
    /// How columns and rows are chosen [default: signal if there are examples and an anchor, else reference].
    #[arg(long, value_enum)]
    pub select: Option<SelectBy>,
    /// Seed of the draw and, in training, of the order of examples.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// A value, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice<T> {
    /// What does best in short trials; see [`super::build`].
    Auto,
    /// This value.
    Given(T),
}

impl<T> Choice<T> {
    /// The value, or another one for `auto`.
    pub fn or(self, other: T) -> T {
        match self {
            Choice::Auto => other,
            Choice::Given(value) => value,
        }
    }
}

/// The word for [`Choice::Auto`].
pub const AUTO: &str = "auto";

impl<T: fmt::Display> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str(AUTO),
            Choice::Given(value) => value.fmt(f),
        }
    }
}

/// The rank, and that of a trial that does not choose it.
const DEFAULT_RANK: u32 = 32;

fn parse_rank(text: &str) -> Result<Choice<u32>, String> {
    match text.parse() {
        _ if text == AUTO => Ok(Choice::Auto),
        Ok(rank) if rank > 0 => Ok(Choice::Given(rank)),
        _ => Err("use a positive whole number, or auto".into()),
    }
}

/// A rate, or `auto`.
pub fn parse_rate(text: &str) -> Result<Choice<f64>, String> {
    match text.parse() {
        _ if text == AUTO => Ok(Choice::Auto),
        Ok(rate) => Ok(Choice::Given(rate)),
        Err(_) => Err("use a number such as 2e-3, or auto".into()),
    }
}

/// How columns and rows are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectBy {
    /// At random, by weights that follow from the matrix alone.
    Drawn(Selection),
    /// By the signal of the task's examples against the noise of the model's own texts.
    Signal,
}

/// The name of [`SelectBy::Signal`] in an adapter and on the command line.
pub const SIGNAL: &str = "signal";

impl SelectionArgs {
    /// The rank. That of trials of other options while it is `auto`.
    pub fn rank(&self) -> u32 {
        self.rank.or(DEFAULT_RANK)
    }

    /// How columns and rows are chosen, where `has_texts` says whether there are examples and an anchor.
    pub fn select(&self, has_texts: bool) -> SelectBy {
        let default = if has_texts { SelectBy::Signal } else { SelectBy::Drawn(Selection::Reference) };
        self.select.unwrap_or(default)
    }

    /// Whether the rank or the targets are `auto`.
    pub fn is_automatic(&self) -> bool {
        self.rank == Choice::Auto || self.targets == AUTO
    }

    /// The same for the library, for columns and rows that are drawn.
    pub fn options(&self, selection: Selection) -> SelectionOptions {
        SelectionOptions {
            rank: self.rank(),
            targets: self.targets.clone(),
            layers: self.layers.clone(),
            selection,
            seed: self.seed,
        }
    }
}

/// Blocks of a model from the first to the last, both included.
pub type LayerRange = std::ops::RangeInclusive<usize>;

/// Blocks such as `24-29`, or one.
pub fn parse_layers(text: &str) -> Result<LayerRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err("use for example 24-29, or one number".into()),
    }
}

/// The chat template of a command that uses one.
#[derive(Clone, Debug, Args)]
pub struct TemplateArgs {
    /// Chat template to use: a file, or the name of one of the model's own, such as tool_use [default: the
    /// model's default].
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub chat_template: Option<String>,
    /// System message of conversations that have none.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
}

impl TemplateArgs {
    /// Makes the base use it. Without one, warns if files of the base hold different ones.
    pub fn apply(&self, base: &mut Base) -> crate::Result<()> {
        if let Some(system) = &self.system {
            base.use_system(system);
        }
        if let Some(name_or_file) = &self.chat_template {
            return base.use_chat_template(name_or_file);
        }
        super::warn_of_templates(base)
    }

    /// Refuses the option where nothing uses it; `option` is what would.
    pub fn must_be_unused(&self, option: &str) -> crate::Result<()> {
        match self.chat_template.as_ref().or(self.system.as_ref()) {
            None => Ok(()),
            Some(_) => Err(Error::request(
                "--chat-template and --system have no effect here",
                format!("leave them out, or add {option}"),
            )),
        }
    }
}

/// The chat template of a model that is written.
#[derive(Clone, Debug, Args)]
pub struct OutputTemplateArgs {
    /// Chat template that the output gets: a file, or the name of one of the model's own [default: the
    /// model's default].
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub chat_template: Option<String>,
}

impl OutputTemplateArgs {
    /// Makes outputs of the base have it.
    pub fn apply(&self, base: &mut Base) -> crate::Result<()> {
        self.chat_template.as_ref().map_or(Ok(()), |name_or_file| base.use_chat_template(name_or_file))
    }

    /// Refuses it for an ONNX output.
    pub fn must_be_unused(&self, output: &Path) -> crate::Result<()> {
        if self.chat_template.is_none() {
            return Ok(());
        }
        let problem = "--chat-template is for GGUF files and Hugging Face folders";
        let help = "leave it out, and put the template beside the model as chat_template.jinja";
        Err(Error::input(output, "output", problem, help))
    }
}

/// The adapters that the model runs with.
#[derive(Clone, Debug, Args)]
pub struct AdapterArgs {
    /// Adapter to apply: curmerge's own, a PEFT LoRA folder, a GGUF LoRA file, or `hf:OWNER/NAME[:FILE]`.
    /// Given several times, all apply, as in a merge. A factor multiplies the adapter's change.
    #[arg(long = "adapter", value_name = "ADAPTER[=FACTOR]", value_parser = AdapterPart::parser(), value_hint = ValueHint::AnyPath)]
    pub adapters: Vec<AdapterPart>,
    /// Multiplies the adapters' own scales.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, requires = "adapters")]
    pub scale: f32,
    /// Use an adapter that was trained on other values of this model, such as another quantization.
    #[arg(long, requires = "adapters")]
    pub allow_other_base: bool,
}

/// How the model computes.
#[derive(Clone, Copy, Debug, Args)]
pub struct ComputeArgs {
    /// Products with the model's matrices: f32, or bf16, which is faster on AMD processors with AVX-512 BF16, slower
    /// on Intel's, and the same as f32 without it.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
}

/// How training computes.
#[derive(Clone, Copy, Debug, Args)]
pub struct TrainingComputeArgs {
    /// Products with the model's matrices. bf16 learns the same and is nearly twice as fast on AMD processors with
    /// AVX-512 BF16.
    #[arg(long, value_enum, default_value_t)]
    pub precision: TrainingPrecision,
}

/// What products are computed in while training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TrainingPrecision {
    /// bf16 where the processor has such products and they are faster, else f32
    #[default]
    Auto,
    /// products of f32
    F32,
    /// products of bfloat16, summed in f32; f32 where the processor has none
    Bf16,
}

impl TrainingComputeArgs {
    /// The precision on this processor.
    pub fn precision(self) -> Precision {
        match self.precision {
            TrainingPrecision::Auto => Precision::fastest(),
            TrainingPrecision::F32 => Precision::F32,
            TrainingPrecision::Bf16 => Precision::Bf16,
        }
    }
}

impl AdapterArgs {
    /// These adapters, with their own scales.
    pub fn plain(adapters: Vec<AdapterPart>) -> Self {
        AdapterArgs { adapters, scale: 1.0, allow_other_base: false }
    }
}

/// An adapter of several, and the factor of its change.
#[derive(Clone, Debug)]
pub struct AdapterPart {
    /// The file or folder.
    pub path: PathBuf,
    /// 1 for its whole change.
    pub factor: f32,
}

impl AdapterPart {
    /// The whole change of an adapter.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), factor: 1.0 }
    }

    /// Reads ADAPTER or ADAPTER=FACTOR.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().map(|text| Self::parse(&text))
    }

    /// An adapter, or one with a factor.
    pub fn parse(text: &OsStr) -> Self {
        let whole = Self::whole(text);
        let Some((name, factor)) = text.to_str().and_then(|text| text.rsplit_once('=')) else { return whole };
        match factor.parse() {
            // A file's name may look like this too.
            Ok(factor) if !whole.path.exists() => Self { path: name.into(), factor },
            _ => whole,
        }
    }
}

/// How a merge stores tensors.
#[derive(Clone, Debug, Args)]
pub struct StorageArgs {
    /// Types of a whole GGUF file, by llama-quantize's names (q4_k_m, q5_k_s, iq4_xs, f16, ...; see
    /// convert); or auto, which stores each changed tensor as narrow as --fidelity allows and leaves
    /// the others as they are [default: every tensor as the base stores it].
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    file_type: Option<WholeType>,
    /// Type of the changed tensors alone: f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1,
    /// q4_0, iq4_nl, iq4_xs, mxfp4, q3_k or q2_k.
    #[arg(long, value_name = "TYPE", value_parser = parse_adapted)]
    type_adapted: Option<DType>,
    /// Importance matrix for --type, as llama-imatrix writes it.
    #[arg(long, value_name = "FILE", requires = "file_type")]
    imatrix: Option<PathBuf>,
    /// With --type auto: lower limit of the cosine between the written change and the adapter's change.
    #[arg(long, default_value_t = 0.9, value_name = "COSINE", value_parser = parse_fidelity)]
    fidelity: f64,
}

impl StorageArgs {
    /// The importance matrix that [`Self::options`] takes, opened.
    pub fn imatrix(&self) -> crate::Result<Option<Imatrix>> {
        Ok(self.imatrix.as_ref().map(Imatrix::open).transpose()?)
    }

    /// The file that [`Self::imatrix`] opens.
    pub fn imatrix_mut(&mut self) -> Option<&mut PathBuf> {
        self.imatrix.as_mut()
    }

    /// The storage part of the merge options. The output must not replace the `protected` files.
    pub fn options<'a>(
        &self,
        imatrix: Option<&'a Imatrix>,
        protected: impl Iterator<Item = PathBuf>,
    ) -> crate::Result<MergeOptions<'a>> {
        let storage = match (self.type_adapted, self.file_type) {
            (Some(dtype), Some(WholeType::Auto)) => {
                let problem = format!("--type auto and --type-adapted {dtype} ask for different things");
                return Err(Error::request(problem, "leave one of them out"));
            }
            (Some(dtype), _) => Storage::Only(dtype),
            (None, Some(WholeType::Auto)) => Storage::Narrowest { fidelity: self.fidelity },
            _ => Storage::AsStored,
        };
        let file_type = match self.file_type {
            Some(WholeType::Mixture(file_type)) => Some(file_type),
            _ => None,
        };
        let protect = protected.chain(self.imatrix.clone()).collect();
        Ok(MergeOptions { file_type, imatrix, storage, protect, ..Default::default() })
    }

    /// Whether any of these options was given.
    pub fn is_given(&self) -> bool {
        self.file_type.is_some() || self.type_adapted.is_some()
    }
}

/// What `--type` asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WholeType {
    /// `auto`
    Auto,
    /// A mixture of types.
    Mixture(FileType),
}

fn parse_type(name: &str) -> Result<WholeType, String> {
    if name.eq_ignore_ascii_case("auto") {
        return Ok(WholeType::Auto);
    }
    FileType::from_str(name, true).map(WholeType::Mixture).map_err(|_| {
        let names: Vec<_> = FileType::ALL.iter().map(|file_type| file_type.name()).collect();
        format!("use auto, {}", names.join(", "))
    })
}

fn parse_adapted(name: &str) -> Result<DType, String> {
    DType::parse(name)
        .filter(|dtype| dtype.can_encode() && *dtype != DType::F64)
        .ok_or_else(|| "use one of the types that `curmerge merge --help` lists".into())
}

fn parse_fidelity(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    number.ok_or_else(|| "use a number from 0 to 1".into())
}

/// The text of a file, which may be compressed.
///
/// # Errors
/// A file that cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> crate::Result<String> {
    let bytes = compressed::read(path).map_err(|e| Error::io(path, "read", e))?;
    String::from_utf8(bytes).map_err(|e| {
        let place = format!("byte {}", e.utf8_error().valid_up_to());
        Error::input(path, place, "not UTF-8", "convert the text to UTF-8")
    })
}

/// A number of bytes, with an optional suffix K, M, G or T (or KB and so on, as Hugging Face writes them), in
/// powers of 1000.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let size = upper.strip_suffix('B').unwrap_or(&upper);
    let units = [('K', 1000), ('M', 1_000_000), ('G', 1_000_000_000), ('T', 1_000_000_000_000u64)];
    let (number, unit) = units
        .iter()
        .find_map(|&(letter, unit)| Some((size.strip_suffix(letter)?, unit)))
        .unwrap_or((size, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| "use a whole number such as 2G or 500M".into())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_count_in_thousands() {
        for (text, bytes) in
            [("2G", 2_000_000_000), ("500M", 500_000_000), ("5gb", 5_000_000_000), ("7 KB", 7000), ("12", 12)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "B", "0", "0M", "-1G", "1.5G", "2GiB", "99999999999T", "1MM"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
