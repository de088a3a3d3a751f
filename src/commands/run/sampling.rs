//! The options that choose tokens, by llama.cpp's names.

use std::hash::{BuildHasher, RandomState};

use clap::Args;

use crate::model::{Sampler, SamplingOptions};
use crate::{Error, Result};

/// How tokens are chosen. In a chat the defaults are llama.cpp's; with -p the likeliest token is taken.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// 0 always takes the likeliest token, whatever --top-k, --top-p, --min-p and --seed say. Higher values make less likely
    /// tokens likelier [default: 0.8 in a chat, 0 with -p].
    #[arg(long = "temp", visible_alias = "temperature", value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from this number of the likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 40, value_name = "N", allow_negative_numbers = true)]
    top_k: i64,
    /// Draw from the likeliest tokens that together have this share of the probability; 1 for all.
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Draw from tokens that have at least this share of the likeliest token's probability; 0 for all.
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    min_p: f32,
    /// Divide positive logits of recent tokens by this, and multiply negative ones.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repeat_penalty: f32,
    /// How many tokens are recent; -1 for all.
    #[arg(long, default_value_t = 64, value_name = "N", allow_negative_numbers = true)]
    repeat_last_n: i64,
    /// Subtract this from the logit of each recent token.
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtract this from the logit of each recent token for every time that it occurs.
    #[arg(long, default_value_t = 0.0, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Seed of the draws; -1 for another each time [default: -1 in a chat, 0 with -p].
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
}

impl SamplingArgs {
    /// Refuses numbers that mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let share = |p: f32, least: bool| (0.0..=1.0).contains(&p) && (p > 0.0 || least);
        let finite = |x: f32| x.is_finite();
        let wrong = [
            (
                "--temp",
                self.temperature.unwrap_or(0.0),
                "0 or more",
                self.temperature.is_none_or(|t| t >= 0.0 && finite(t)),
            ),
            ("--top-p", self.top_p, "a share above 0 and at most 1", share(self.top_p, false)),
            ("--min-p", self.min_p, "a share from 0 to 1", share(self.min_p, true)),
            (
                "--repeat-penalty",
                self.repeat_penalty,
                "a positive number",
                self.repeat_penalty > 0.0 && finite(self.repeat_penalty),
            ),
            ("--presence-penalty", self.presence_penalty, "a number", finite(self.presence_penalty)),
            ("--frequency-penalty", self.frequency_penalty, "a number", finite(self.frequency_penalty)),
        ];
        match wrong.into_iter().find(|(.., good)| !good) {
            None => Ok(()),
            Some((option, number, wanted, _)) => {
                Err(Error::request(format!("{option} {number} cannot be used"), format!("give {wanted}")))
            }
        }
    }

    /// A sampler of a continuation, or of a chat's answers.
    pub(super) fn sampler(&self, chat: bool) -> Sampler {
        let temperature = if chat { SamplingOptions::llama_cpp().temperature } else { 0.0 };
        let options = SamplingOptions {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: usize::try_from(self.top_k).unwrap_or(0),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: usize::try_from(self.repeat_last_n).unwrap_or(usize::MAX),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
        };
        let seed = self.seed.unwrap_or(if chat { -1 } else { 0 });
        // The keys of a hash map are random numbers of the system.
        Sampler::new(options, u64::try_from(seed).unwrap_or_else(|_| RandomState::new().hash_one(0)))
    }
}
