use std::path::Path;

use super::*;
use crate::train::anchor::AnchorOptions;
use crate::train::data::DataOptions;

const RANK: u32 = 4;
const MEMORY: u64 = 1 << 28;

/// The demo's base, with texts of its own and examples.
fn with_demo(work: impl FnOnce(&Base, &Transformer<'_, f32>, (&Anchor, &Dataset))) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
    let base = Base::open(demo.join("model.gguf")).unwrap();
    let tokenizer = base.tokenizer().unwrap();
    let mut model = Transformer::new(&base).unwrap();
    let options = AnchorOptions { texts: 24, length: 32, seed: 1 };
    let anchor = Anchor::self_written(&mut model, &tokenizer, None, &options, MEMORY, |_, _| ()).unwrap();
    let data = Dataset::read(demo.join("train.jsonl"), &tokenizer, None, &DataOptions::default()).unwrap();
    work(&base, &model, (&anchor, &data));
}

/// A selection, with at most this many candidates.
fn selection<'a>(
    base: &'a Base,
    model: &Transformer<'a, f32>,
    names: &'a [String],
    read: (&Anchor, &'a Dataset),
    candidates: usize,
) -> SignalSelection<'a> {
    let options = SignalOptions { candidates, ..SignalOptions::new(RANK, 3, MEMORY) };
    let usable = usable(base, names, RANK).unwrap();
    SignalSelection::new(base, model, (names, usable), read, options).unwrap()
}

/// S with its ridge and T of all columns and rows of each matrix.
fn exact(selection: &SignalSelection<'_>) -> Vec<[[Array2<f64>; 2]; 2]> {
    let zeros = || Moments::zeros(selection.shapes());
    let [mut noise, mut signal] = [zeros(), zeros()];
    let model = selection.probed(selection.everything(), 0).unwrap();
    selection.pass_over_anchor(&model, &mut noise, |_| ());
    selection.pass_over_examples(&model, &mut signal, |_| ());
    let both = noise.into_matrices().into_iter().zip(signal.into_matrices());
    both.map(|(noise, signal)| {
        let mut noise = noise.map(|s| s.mapv(f64::from));
        for s in &mut noise {
            let ridge = ridge(&s.diag().to_vec());
            s.diag_mut().iter_mut().for_each(|x| *x += ridge);
        }
        [noise, signal.map(|t| t.mapv(f64::from))]
    })
    .collect()
}

#[test]
fn few_candidates_lose_little_of_the_exact_choice() {
    with_demo(|base, model, read| {
        let names = base.targets("q,v,up,down", None).unwrap();
        let of = |candidates| selection(base, model, &names, read, candidates);
        let all = of(usize::MAX);
        let noise = all.noise(|_| ()).unwrap();
        let moments = exact(&all);
        for (matrix, [noise_of, _]) in moments.iter().enumerate() {
            for (s, diagonal) in noise_of.iter().zip(noise.of(matrix)) {
                let ridge = ridge(diagonal);
                let close = |(s, d): (&f64, &f64)| (s - d - ridge).abs() <= 1e-3 * s;
                assert!(s.diag().iter().zip(diagonal).all(close), "{}", names[matrix]);
            }
        }
        let explained = |selection: &SignalSelection<'_>| {
            let indices = selection.orders(&noise, |_| ()).unwrap().indices(RANK);
            let parts = moments.iter().zip(indices).map(|([noise, signal], indices)| {
                let sides = [(0, indices.cols), (1, indices.rows)].into_iter();
                sides
                    .map(|(side, chosen)| {
                        let chosen: Vec<usize> = chosen.iter().map(|&i| i as usize).collect();
                        greedy::explained(&noise[side], &signal[side], &chosen)
                    })
                    .sum::<f64>()
            });
            parts.sum::<f64>()
        };
        let greedily: f64 = moments
            .iter()
            .flat_map(|[noise, signal]| noise.iter().zip(signal))
            .map(|(s, t)| greedy::explained(s, t, &greedy::order(s.clone(), t.clone(), RANK as usize)))
            .sum();
        let (all, few) = (explained(&all), explained(&of(4 * RANK as usize)));
        assert!((all / greedily - 1.0).abs() < 1e-3, "{all} of all candidates, {greedily} by definition");
        assert!(few > 0.9 * all && few <= all * 1.05, "{few} of few candidates, {all} of all");
    });
}

#[test]
fn what_has_no_signal_follows_by_its_size() {
    with_demo(|base, model, read| {
        let names = base.targets("q", Some(0..=0)).unwrap();
        let selection = selection(base, model, &names, read, CANDIDATES);
        let moments = || [Array2::eye(3), Array2::from_diag(&ndarray::array![0.0, 2.0, 0.0])];
        let order = selection.order(moments(), 1.0, &[5, 7, 9], &[9, 8, 7, 6]);
        assert_eq!(order, [7, 9, 8, 6]);
        assert_eq!(selection.order([Array2::zeros((1, 1)), Array2::zeros((1, 1))], 1.0, &[3], &[3]), [3]);
    });
}

#[test]
fn a_term_through_what_was_chosen_learns_more_for_what_it_costs() {
    use crate::cur::{Indices, Selection, new_targets};
    with_demo(|base, model, read| {
        let names = base.targets("q,v", None).unwrap();
        let selection = selection(base, model, &names, read, CANDIDATES);
        let chosen = selection.orders(&selection.noise(|_| ()).unwrap(), |_| ()).unwrap().indices(RANK);
        let drawn = new_targets(base, &names, RANK, Selection::Reference, 0).unwrap();
        let drawn = drawn.into_iter().map(|target| Indices { cols: target.cols, rows: target.rows });
        let moments = exact(&selection);
        let sum = |all: Vec<Indices>| -> f64 {
            let parts = all.into_iter().zip(&moments).map(|(indices, [noise, signal])| {
                let chosen: Vec<usize> = indices.cols.iter().map(|&i| i as usize).collect();
                greedy::explained(&noise[0], &signal[0], &chosen)
            });
            parts.sum()
        };
        let (chosen, drawn) = (sum(chosen), sum(drawn.collect()));
        assert!(chosen > 1.5 * drawn, "{chosen} of the chosen, {drawn} of the drawn");
    });
}
