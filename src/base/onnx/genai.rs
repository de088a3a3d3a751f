//! The configuration from genai_config.json, as onnxruntime-genai's builder writes it beside an ONNX model.
//! What it lacks is read from the graph: the width of the feed-forward part from its matrix, epsilon from the
//! norms, windows, scale and cap from attention's nodes, multipliers and the cap of logits from the nodes
//! that the builder adds for them, rotary frequencies from their cosines and sines.

use std::path::PathBuf;

use curmerge_formats::onnx::{AttributeValue, Node, Onnx};
use serde_json::Value as Json;

use crate::arch::{Architecture, ClassOption, Positions};
use crate::base::config::Config;
use crate::base::folder::{Folder, GENAI_CONFIG};
use crate::base::rope::Rope;
use crate::{Error, Result};

/// The error, in radians, allowed in the angles of a cache: its sines and cosines are of f32 angles, rounded
/// to f16.
const ANGLE_ERROR: f64 = 2e-3;
/// The further error allowed per position, from frequencies rounded to f32.
const ANGLE_ERROR_A_POSITION: f64 = 3e-7;
const ADD_CONFIG: &str = "put the model's config.json beside it";

/// A genai_config.json.
pub(super) struct GenaiConfig {
    path: PathBuf,
    json: Json,
}

impl GenaiConfig {
    /// The one of a folder, if it has one.
    ///
    /// # Errors
    /// A file that is not a JSON object.
    pub(super) fn open(folder: Folder<'_>) -> Result<Option<Self>> {
        let json = folder.object(GENAI_CONFIG)?;
        Ok(json.map(|json| Self { path: folder.join(GENAI_CONFIG), json: json.into() }))
    }

    /// The model's architecture by Hugging Face's `model_type`.
    pub(super) fn model_type(&self) -> &str {
        self.json["model"]["type"].as_str().unwrap_or("")
    }

    /// The configuration of a model of this architecture whose feed-forward part has the width `ff`.
    pub(super) fn config(
        &self,
        onnx: &Onnx,
        architecture: &'static Architecture,
        ff: Option<usize>,
    ) -> Result<Config> {
        let whole = architecture.forward.positions != Positions::Learned
            && !architecture.has_experts()
            && !architecture.gguf.convolutions
            && !architecture.hugging_face.has(ClassOption::Temperature);
        if !whole {
            let problem = format!("it does not say enough about {}", architecture.name);
            return Err(Error::input(&self.path, "type", problem, ADD_CONFIG));
        }
        let decoder = &self.json["model"]["decoder"];
        let (layers, head_dim) =
            (self.count(decoder, "num_hidden_layers")?, self.count(decoder, "head_size")?);
        let graph = Graph { onnx, layers };
        let (windowed, window) = graph.windows()?;
        let [rope, local_rope] = graph.ropes(&windowed, head_dim)?;
        let d_model = self.count(decoder, "hidden_size")?;
        let config = Config {
            layers,
            d_model,
            heads: self.count(decoder, "num_attention_heads")?,
            kv_heads: self.count(decoder, "num_key_value_heads")?,
            head_dim,
            ff: ff.ok_or_else(|| graph.error("graph", "curmerge finds no feed-forward part in it"))?,
            vocab: self.count(&self.json["model"], "vocab_size")?,
            norm_eps: graph.epsilon()?,
            context: self.count(&self.json["model"], "context_length")?,
            rope,
            local_rope,
            unrotated: graph.unrotated(),
            window,
            windowed,
            attention_scale: graph.number("scale")?.unwrap_or(1.0 / (head_dim as f64).sqrt()),
            attention_cap: graph.number("softcap")?,
            logit_cap: graph.factor("/lm_head/softcap/")?,
            embedding_scale: match architecture.forward.scales_embedding {
                true => f64::from((d_model as f32).sqrt()),
                false => graph.factor("/model/embed_tokens/Mul")?.unwrap_or(1.0),
            },
            residual_scale: graph.factor("/residual_mul/")?.unwrap_or(1.0),
            logit_scale: graph.factor("/lm_head/Mul")?.unwrap_or(1.0),
            ..Config::unknown()
        };
        config.checked(&self.path)
    }

    fn count(&self, object: &Json, key: &str) -> Result<usize> {
        let count = object[key].as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| Error::input(&self.path, key, "missing or not a whole number", ADD_CONFIG))
    }
}

/// Numbers of a graph and of a config.json that differ by less than this share are the same: those of a graph
/// are rounded, perhaps to half precision.
const SAME: f64 = 5e-3;

/// Where the graph computes with other numbers than a config.json beside it says: the key and the problem. Only
/// fused attention tells what it computes with, so other graphs contradict nothing.
pub(super) fn contradiction(onnx: &Onnx, config: &Config) -> Option<(String, String)> {
    let graph = Graph { onnx, layers: config.layers };
    if graph.nodes(&["GroupQueryAttention"]).count() != config.layers {
        return None;
    }
    let found = |key: &str, says: String, computes: String| {
        let problem = format!("config.json says {says}, and the graph computes with {computes}");
        Some((key.to_owned(), problem))
    };
    if let Ok(epsilon) = graph.epsilon()
        && (epsilon / config.norm_eps - 1.0).abs() > SAME
    {
        return found("epsilon of the norms", config.norm_eps.to_string(), epsilon.to_string());
    }
    let (windowed, window) = graph.windows().ok()?;
    let shown = |window: Option<usize>| window.map_or("none".to_owned(), |window| window.to_string());
    // A window as long as the context changes nothing.
    let within = |window: Option<usize>| window.filter(|window| *window < config.context);
    for (layer, is_windowed) in windowed.iter().enumerate() {
        let own = within(window.filter(|_| *is_windowed));
        let wanted = within(config.window_of(layer));
        if own != wanted {
            return found("sliding_window", shown(wanted), shown(own));
        }
    }
    let rope = config.rope.as_ref().filter(|rope| rope.long.is_none() && rope.uncomputed.is_none())?;
    let unrotated = graph.unrotated();
    for (layer, own) in unrotated.iter().enumerate() {
        let wanted = config.rope_of(layer).is_none();
        if *own != wanted {
            let shown = |unrotated: bool| {
                format!("block {layer} {} positions", if unrotated { "without" } else { "with" })
            };
            return found("rotary embeddings", shown(wanted), shown(*own));
        }
    }
    let [own, _] = graph.ropes(&windowed, config.head_dim).ok()?;
    let own = own?;
    let (own, wanted) = (own.frequencies(0), rope.frequencies(0));
    let same = own.len() == wanted.len() && own.iter().zip(&wanted).all(|(a, b)| (a / b - 1.0).abs() < SAME);
    if same { None } else { found("rope_theta", rope.base.to_string(), "other frequencies".to_owned()) }
}

/// Values read from the graph.
struct Graph<'a> {
    onnx: &'a Onnx,
    layers: usize,
}

impl<'a> Graph<'a> {
    fn error(&self, place: &str, problem: impl Into<String>) -> Error {
        Error::input(self.onnx.path(), place, problem, ADD_CONFIG)
    }

    /// The nodes of these operators, in the order of blocks.
    fn nodes(&self, operators: &'static [&'static str]) -> impl Iterator<Item = &'a Node> {
        self.onnx.graph().nodes.iter().filter(|node| operators.contains(&node.op_type.as_str()))
    }

    fn attention(&self) -> impl Iterator<Item = &'a Node> {
        self.nodes(&["GroupQueryAttention", "MultiHeadAttention"])
    }

    /// The epsilon of the norms, as it was before it was rounded to f32.
    fn epsilon(&self) -> Result<f64> {
        let norms = self.nodes(&[
            "SimplifiedLayerNormalization",
            "SkipSimplifiedLayerNormalization",
            "RMSNormalization",
            "LayerNormalization",
            "SkipLayerNormalization",
        ]);
        // The standard operator has a default.
        let usual = |node: &Node| (node.op_type == "LayerNormalization").then_some(1e-5);
        let epsilons: Vec<f32> =
            norms.filter_map(|node| float(node, "epsilon").or_else(|| usual(node))).collect();
        match epsilons.first() {
            Some(first) if epsilons.iter().all(|epsilon| epsilon == first) => Ok(decimal(*first)),
            _ => Err(self.error("norms", "they have no epsilon, or different ones")),
        }
    }

    /// An attribute of all attention nodes, unless it is 0.
    fn number(&self, name: &'static str) -> Result<Option<f64>> {
        let numbers: Vec<f32> = self.attention().map(|node| float(node, name).unwrap_or(0.0)).collect();
        if numbers.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(self.error("attention", format!("its {name} differs between blocks")));
        }
        Ok(numbers.first().filter(|number| **number != 0.0).map(|number| decimal(*number)))
    }

    /// The constant that the `Mul` and `Div` nodes whose names contain `name` multiply or divide by, if there
    /// are any.
    fn factor(&self, name: &str) -> Result<Option<f64>> {
        let nodes = self.nodes(&["Mul", "Div"]).filter(|node| node.name.contains(name));
        let mut found = None;
        for node in nodes {
            let constant = node.inputs.iter().find_map(|input| self.onnx.constant(input));
            let number = match constant.map(|constant| self.onnx.decode(constant)).transpose()?.as_deref() {
                Some(&[number]) => decimal(number),
                _ => return Err(self.error(name, "its factor is not a constant number")),
            };
            if found.is_some_and(|found| found != number) {
                return Err(self.error(name, "its factor differs between nodes"));
            }
            found = Some(number);
        }
        Ok(found)
    }

    /// Whether each block has a sliding window, and the window's length.
    fn windows(&self) -> Result<(Vec<bool>, Option<usize>)> {
        let window = |node: &Node| node.int("local_window_size").and_then(|size| usize::try_from(size).ok());
        let windows: Vec<Option<usize>> = self.attention().map(window).collect();
        if windows.len() != self.layers {
            let problem = format!("{} nodes of {} blocks", windows.len(), self.layers);
            return Err(self.error("attention", problem));
        }
        let mut lengths: Vec<usize> = windows.iter().copied().flatten().collect();
        lengths.dedup();
        if lengths.len() > 1 {
            return Err(self.error("attention", "windows of different lengths"));
        }
        Ok((windows.iter().map(Option::is_some).collect(), lengths.first().copied()))
    }

    /// The cosines and sines of each block, as these nodes take them.
    fn caches(&self, operator: &'static [&'static str], at: usize) -> Vec<Option<[&'a str; 2]>> {
        let pair = |node: &'a Node| Some([node.inputs.get(at)?.as_str(), node.inputs.get(at + 1)?.as_str()]);
        self.nodes(operator).map(|node| pair(node).filter(|[cos, _]| !cos.is_empty())).collect()
    }

    /// Whether each block has no rotary embeddings; empty if all have. Only fused attention that rotates by itself tells.
    fn unrotated(&self) -> Vec<bool> {
        let caches = self.caches(&["GroupQueryAttention"], 7);
        let some = caches.len() == self.layers && caches.iter().any(Option::is_some);
        if some { caches.iter().map(Option::is_none).collect() } else { Vec::new() }
    }

    /// The rotary embeddings, and those of blocks with a window if they differ.
    fn ropes(&self, windowed: &[bool], head_dim: usize) -> Result<[Option<Rope>; 2]> {
        let mut caches = self.caches(&["GroupQueryAttention"], 7);
        if !caches.iter().any(Option::is_some) {
            // Of q and of k.
            caches = self.caches(&["RotaryEmbedding"], 2).into_iter().step_by(2).collect();
        }
        if caches.len() != self.layers {
            let problem = format!("{} pairs of cosines and sines for {} blocks", caches.len(), self.layers);
            return Err(self.error("rotary embeddings", problem));
        }
        let both: Vec<_> = caches.iter().zip(windowed).collect();
        let one = |wanted: bool| {
            let mut of: Vec<_> =
                both.iter().filter(|(_, w)| **w == wanted).filter_map(|(cache, _)| **cache).collect();
            of.dedup();
            of
        };
        let (global, local) = (one(false), one(true));
        let rope = |caches: &[[&str; 2]]| match caches {
            [cache] => self.rope(*cache, head_dim).map(Some),
            [] => Ok(None),
            _ => Err(self.error("rotary embeddings", "different ones in blocks of one kind")),
        };
        Ok(match (rope(&global)?, rope(&local)?) {
            (Some(global), local) => {
                let local = local.filter(|local| *local != global);
                [Some(global), local]
            }
            (None, Some(local)) => [Some(local), None],
            (None, None) => return Err(self.error("rotary embeddings", "none")),
        })
    }

    /// The rotary embedding with the cosines and sines in these tensors.
    fn rope(&self, names: [&str; 2], head_dim: usize) -> Result<Rope> {
        let place = format!("tensor '{}'", names[0].escape_debug());
        let error = |problem: &str| self.error(&place, problem);
        let constant = |name: &str| self.onnx.constant(name).ok_or_else(|| error("it is not a constant"));
        let (cos, sin) = (constant(names[0])?, constant(names[1])?);
        let width = match (&cos.dims[..], &sin.dims[..]) {
            (&[positions, width], sins) if cos.dims == sins && positions > 1 && width > 0 => width as usize,
            _ => return Err(error("not the cosines of several positions")),
        };
        if 2 * width > head_dim {
            return Err(error("it is wider than a head"));
        }
        let (cos, sin) = (self.onnx.decode(cos)?, self.onnx.decode(sin)?);
        let rope = recovered(&cos, &sin, width);
        rope.ok_or_else(|| error("its rotary frequencies cannot be derived from its cosines and sines"))
    }
}

/// The rotary embedding that reproduces all of these cosines and sines, `[positions, width]`.
fn recovered(cos: &[f32], sin: &[f32], width: usize) -> Option<Rope> {
    let amplitude = f64::from(*cos.first()?);
    if !(amplitude.is_finite() && amplitude > 0.0) {
        return None;
    }
    let dim = 2 * width;
    let measured: Vec<f64> = (0..width).map(|i| frequency(cos, sin, width, i)).collect();
    // Any unscaled frequency gives the base. Of scaled ones only the highest does, which Llama 3's rule
    // keeps.
    let base_by = |i: usize| measured[i].powf(-(dim as f64) / (2.0 * i as f64));
    let plain = [width / 2, width - 1, 1].into_iter().filter(|&i| i > 0 && i < width).map(base_by);
    let rope = |base: f64, factors| Rope { factors, amplitude, ..Rope::plain(base, dim) };
    for base in plain.flat_map(rounded) {
        let rope = rope(base, None);
        if rope.problem(dim).is_none() && reproduces(&rope, cos, sin, width) {
            return Some(rope);
        }
    }
    let base = if width > 1 { base_by(1) } else { 10_000.0 };
    let base = rounded(base).next()?;
    let plain = rope(base, None).frequencies(0);
    let factors = plain.iter().zip(&measured).map(|(plain, measured)| plain / measured).collect();
    let rope = rope(base, Some(factors));
    (rope.problem(dim).is_none() && reproduces(&rope, cos, sin, width)).then_some(rope)
}

/// The frequency of column `i` in radians per position: from the second row, refined by rows at twice the
/// distance each time, while its error stays within a fraction of a turn.
fn frequency(cos: &[f32], sin: &[f32], width: usize, i: usize) -> f64 {
    let angle = |position: usize| {
        let at = position * width + i;
        f64::from(sin[at]).atan2(f64::from(cos[at]))
    };
    let (mut frequency, mut position) = (angle(1), 2);
    while position * width + i < cos.len() && position <= 1024 {
        let turn = 2.0 * std::f64::consts::PI;
        let expected = frequency * position as f64;
        let off = (angle(position) - expected).rem_euclid(turn);
        frequency = (expected + if off > turn / 2.0 { off - turn } else { off }) / position as f64;
        position *= 2;
    }
    frequency
}

/// The number rounded to ever more decimal digits, the fewest first.
fn rounded(number: f64) -> impl Iterator<Item = f64> {
    (0..9).filter_map(move |digits| format!("{number:.digits$e}").parse().ok())
}

/// Whether the embedding has these cosines and sines at every position.
fn reproduces(rope: &Rope, cos: &[f32], sin: &[f32], width: usize) -> bool {
    let frequencies = rope.frequencies(0);
    let rows = cos.chunks_exact(width).zip(sin.chunks_exact(width)).enumerate();
    rows.into_iter().all(|(position, (cos, sin))| {
        let error = rope.amplitude * (ANGLE_ERROR + ANGLE_ERROR_A_POSITION * position as f64);
        frequencies.iter().zip(cos.iter().zip(sin)).all(|(frequency, (&c, &s))| {
            let (sine, cosine) = (frequency * position as f64).sin_cos();
            let near = |own: f64, stored: f32| (rope.amplitude * own - f64::from(stored)).abs() <= error;
            near(cosine, c) && near(sine, s)
        })
    })
}

fn float(node: &Node, name: &str) -> Option<f32> {
    match node.attribute(name) {
        Some(AttributeValue::Float(value)) => Some(*value),
        _ => None,
    }
}

/// The shortest decimal that rounds to this f32: the number that was written.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rope::RopeScaling;

    /// Cosines and sines as torch computes them.
    fn cache(rope: &Rope, positions: usize) -> [Vec<f32>; 2] {
        let frequencies: Vec<f32> = rope.frequencies(0).iter().map(|&f| f as f32).collect();
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let of = |function: fn(f32) -> f32| angles().map(|a| function(a) * rope.amplitude as f32).collect();
        [of(f32::cos), of(f32::sin)]
    }

    #[test]
    fn plain_bases_are_recovered_exactly() {
        for (base, dim) in [(10_000.0, 64), (500_000.0, 128), (1e6, 8), (130_000.0, 32), (1_000_042.0, 128)] {
            let [cos, sin] = cache(&Rope::plain(base, dim), 4096);
            let found = recovered(&cos, &sin, dim / 2).unwrap();
            assert!((found.base / base - 1.0).abs() < 1e-5, "{base}: {}", found.base);
            assert!(found.factors.is_none());
        }
    }

    #[test]
    fn scaled_frequencies_are_measured() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        let factors = scaling.factors(500_000.0, 64);
        let rope = Rope { factors: Some(factors), amplitude: 1.5, ..Rope::plain(500_000.0, 64) };
        let [cos, sin] = cache(&rope, 4096);
        let found = recovered(&cos, &sin, 32).unwrap();
        assert_eq!((found.base, found.amplitude), (500_000.0, 1.5));
        for (own, told) in rope.frequencies(0).iter().zip(found.frequencies(0)) {
            assert!((own / told - 1.0).abs() < 1e-4, "{own} {told}");
        }
    }

    #[test]
    fn other_tables_are_refused() {
        let [mut cos, sin] = cache(&Rope::plain(10_000.0, 16), 512);
        cos[8 * 300 + 3] += 0.1;
        assert!(recovered(&cos, &sin, 8).is_none());
        assert!(recovered(&[0.0; 16], &[0.0; 16], 8).is_none());
        assert!(recovered(&[f32::NAN; 16], &[0.0; 16], 8).is_none());
    }
}
