//! `curmerge run`: continue a text, or talk to the model.

pub(super) mod answer;
mod chat;
mod continuation;
mod sampling;

use std::path::PathBuf;

use clap::Args;

use super::arguments::{AdapterArgs, TemplateArgs};
use crate::base::{Base, Config};
use crate::kernels::RowProducts;
use crate::model::Transformer;
use crate::{Error, Result};

/// Options of `curmerge run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Base model: a GGUF file, a Hugging Face folder, an ONNX file, `ollama:NAME[:TAG]`, or of the Hugging Face Hub
    /// `hf:OWNER/NAME[:FILE|QUANT][@REVISION]`, such as `hf:OWNER/NAME:Q4_K_M`.
    pub base: PathBuf,
    /// The adapters to apply.
    #[command(flatten)]
    pub adapters: AdapterArgs,
    /// The text to continue; `-` reads it from standard input. Without it, a chat begins: each line of standard input is a
    /// message, and so is what stands between lines of three quotes ("""). Lines that begin with a slash are commands, in a
    /// pipe, too; /help lists them.
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// With -p: put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    pub chat: bool,
    /// How a chat becomes text.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// In a chat: answer each message with the base and with the adapted model.
    #[arg(long, requires = "adapters", conflicts_with = "prompt")]
    pub compare: bool,
    /// Upper limit of the tokens of an answer; -1 for none [default: 64 with -p, none in a chat].
    #[arg(
        short = 'n',
        long = "predict",
        visible_aliases = ["n-predict", "max-tokens"],
        value_name = "N",
        value_parser = clap::value_parser!(i64).range(-1..),
        allow_negative_numbers = true
    )]
    pub predict: Option<i64>,
    /// Upper limit of the tokens of a text or conversation; the oldest messages of a longer chat are left out [default: the
    /// model's context, as is 0]. In a chat up to a quarter of it is kept for the answer.
    #[arg(short = 'c', long, value_name = "N")]
    pub ctx_size: Option<u32>,
    /// Do not round the activations of written tokens to 8 bits, as llama.cpp does for quantized matrices: slower.
    /// --logprobs does not round them either.
    #[arg(long)]
    pub exact: bool,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: sampling::SamplingArgs,
    /// With -p and --json: print the natural log-probabilities of the N likeliest tokens at each position.
    #[arg(long, default_value_t = 0, value_name = "N", requires_all = ["json", "prompt"])]
    pub logprobs: usize,
}

impl RunArgs {
    /// The base with adapters, as it writes.
    fn model<'a>(&self, base: &'a Base, adapters: &AdapterArgs) -> Result<Transformer<'a, f32>> {
        let exact = self.exact || self.logprobs > 0;
        let products = if exact { RowProducts::Exact } else { RowProducts::EightBits };
        Ok(super::adapted_model(base, adapters)?.with_row_products(products))
    }

    /// The greatest length of a sequence.
    fn context(&self, config: &Config) -> Result<usize> {
        match self.ctx_size.map(|wanted| wanted as usize).filter(|wanted| *wanted > 0) {
            Some(wanted) if wanted > config.context => {
                let problem = format!("--ctx-size {wanted}, and the model's context is {}", config.context);
                Err(Error::request(problem, "give a smaller one, or leave it out"))
            }
            Some(wanted) => Ok(wanted),
            None => Ok(config.context),
        }
    }

    /// The limit of an answer's tokens, where there is one.
    fn limit(&self, default: Option<usize>) -> Option<usize> {
        match self.predict {
            None => default,
            Some(number) => usize::try_from(number).ok(),
        }
    }
}

/// Prints the continuation of the prompt, or leads a conversation; with `json`, as JSON.
pub fn run(args: &RunArgs, json: bool) -> Result<()> {
    args.sampling.check()?;
    let mut base = super::open(&args.base)?;
    match &args.prompt {
        Some(_) if !args.chat => args.template.must_be_unused("--chat")?,
        _ => args.template.apply(&mut base)?,
    }
    let done = match &args.prompt {
        Some(prompt) => continuation::run(args, prompt, &base, json),
        None => chat::run(args, &base, json),
    };
    done.map_err(|error| super::not_finite::explained(error, &base))
}
