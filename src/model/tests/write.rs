//! Texts that the model writes, against one that it extends token by token.

use std::path::Path;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::with_model;
use crate::base::Base;
use crate::model::{Generator, Next, Transformer};

/// The first token whose cumulative probability is above `point`, as the logits of one pass have it.
fn sampled(logits: &[f64], point: f64) -> u32 {
    let max = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let total: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    let mut rest = point * total;
    let token = logits.iter().position(|l| {
        rest -= (l - max).exp();
        rest < 0.0
    });
    token.unwrap() as u32
}

/// A llama, and a model with linear attention.
fn each_model(work: impl Fn(&Base)) {
    with_model(&work);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/arch");
    work(&Base::open(fixtures.join("qwen3_5-heads/model.gguf")).unwrap());
}

#[test]
fn texts_written_together_are_those_written_alone() {
    each_model(|base| {
        let model = Transformer::<f64>::new(base).unwrap();
        let (prompts, length) = ([vec![3, 1], vec![7, 9, 2, 4], vec![5, 8]], 12);
        let generator = |i: usize| ChaCha20Rng::seed_from_u64(i as u64);
        let head = model.pack_head();
        let written = |end, head| {
            let mut generators: Vec<_> = (0..prompts.len()).map(generator).collect();
            let next = |_, text: &[u32]| if text.last().copied() == end { Next::End } else { Next::Write };
            model.write(&prompts, (length, next), &mut generators, head, |_| ())
        };
        let texts = written(None, None);
        assert_eq!(written(None, Some(&head)), texts);
        // What a prompt holds is not asked about.
        for end in [texts[0][5], texts[1][9], prompts[0][0], prompts[1][1]] {
            for ((found, whole), prompt) in written(Some(end), None).iter().zip(&texts).zip(&prompts) {
                let place = whole[prompt.len()..].iter().position(|&token| token == end);
                let length = place.map_or(length, |place| prompt.len() + place + 1);
                assert_eq!(found, &whole[..length], "ended by {end}");
            }
        }
        let given = [4, 4, 6];
        let mut generators: Vec<_> = (0..prompts.len()).map(generator).collect();
        let next = |i, text: &[u32]| match text.len() == 5 + i {
            true => Next::Read(&given),
            false => Next::Write,
        };
        let interrupted = model.write(&prompts, (length, next), &mut generators, None, |_| ());
        let all = texts.iter().map(|text| (text, None));
        let all = all.chain(interrupted.iter().enumerate().map(|(i, text)| (text, Some(5 + i))));
        for (number, (text, break_at)) in all.enumerate() {
            let i = number % prompts.len();
            let (prompt, mut random) = (&prompts[i], generator(i));
            assert!(text.len() == length && text.starts_with(prompt), "{text:?}");
            for end in prompt.len()..length {
                if let Some(place) = break_at.map(|start| end.wrapping_sub(start)).filter(|&place| place < 3)
                {
                    assert_eq!(text[end], given[place]);
                    continue;
                }
                let logits = Generator::new(&model).read(&text[..end]).unwrap();
                let point = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                assert_eq!(text[end], sampled(&logits.to_vec(), point), "token {end} of text {i}");
            }
        }
    });
}

#[test]
fn answers_written_together_are_those_written_alone() {
    each_model(|base| {
        let model = Transformer::<f64>::new(base).unwrap();
        let prompts = [vec![3, 1, 6, 6, 8, 2, 4], vec![7, 9], vec![5, 8, 11], vec![2]];
        let alone = |prompt: &[u32], complete: &dyn Fn(&[u32]) -> bool| {
            let mut text = prompt.to_vec();
            while text.len() < prompt.len() + 9 {
                let logits = Generator::new(&model).read(&text).unwrap().to_vec();
                let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                text.push(best as u32);
                if complete(&text[prompt.len()..]) {
                    break;
                }
            }
            text.split_off(prompt.len())
        };
        let whole = |_: &[u32]| false;
        let full: Vec<Vec<u32>> = prompts.iter().map(|prompt| alone(prompt, &whole)).collect();
        assert_eq!(model.continue_greedily(&prompts, 9, whole).unwrap(), full);
        // Tokens that some of the texts reach early, others late.
        let ends: Vec<u32> = full.iter().enumerate().map(|(i, text)| text[2 * i]).collect();
        let complete = |written: &[u32]| ends.contains(written.last().unwrap());
        let answers: Vec<Vec<u32>> = prompts.iter().map(|prompt| alone(prompt, &complete)).collect();
        assert!(answers.iter().any(|answer| answer.len() < 9), "{answers:?}");
        assert_eq!(model.continue_greedily(&prompts, 9, complete).unwrap(), answers);
        assert_eq!(model.continue_greedily(&[], 9, whole).unwrap(), Vec::<Vec<u32>>::new());
        let none = model.continue_greedily(&prompts, 0, whole).unwrap();
        assert!(none.iter().all(Vec::is_empty), "{none:?}");
    });
}
