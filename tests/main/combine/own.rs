//! curmerge's own adapters, combined among themselves and with LoRAs.

use curmerge::combine::{Combination, CombineOptions, Combined, combine};
use curmerge::fingerprint::{BaseCheck, check};
use curmerge::lora::Lora;
use curmerge::merge::Source;
use curmerge_formats::adapter::Adapter;

use super::{base, change, lora, product, size};
use crate::support::adapter::{Recipe, random};
use crate::support::families::Container;
use crate::support::fixture;

const NAME: &str = "blk.0.attn_q";

fn way(combination: Combination) -> CombineOptions {
    CombineOptions { combination, ..CombineOptions::default() }
}

/// Adapters with the same columns and rows.
fn alike(base: &curmerge::Base) -> [Adapter; 2] {
    [(0.4, 1), (0.3, 2)].map(|(most, fill)| Recipe::default().adapter(base, random(most, fill)))
}

/// Other columns and rows, of which some are the same.
fn unlike(base: &curmerge::Base) -> Adapter {
    let recipe = Recipe { targets: "q,down", rank: 7, scale: 2.0, seed: 5, ..Recipe::default() };
    recipe.adapter(base, random(0.2, 3))
}

#[track_caller]
fn of_curmerge(base: &curmerge::Base, sources: &[(Source<'_>, f32)], options: &CombineOptions) -> Adapter {
    let Combined::Cur(adapter) = combine(base, sources, options, |_, _| ()).unwrap() else {
        panic!("a LoRA")
    };
    // It is one that can be written, read and used.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.safetensors");
    adapter.write(&path, &[]).unwrap();
    assert_eq!(Adapter::read(&path).unwrap(), *adapter);
    assert_eq!(check(base, &adapter, BaseCheck::SameValues).unwrap(), None);
    *adapter
}

#[test]
fn cat_is_the_exact_sum_over_all_columns_and_rows() {
    let base = base(Container::Gguf);
    let ([first, _], other) = (alike(&base), unlike(&base));
    let sources = [(Source::Cur(&first), 0.5), (Source::Cur(&other), -1.5)];
    let one = of_curmerge(&base, &sources, &way(Combination::Cat));
    let find = |adapter: &Adapter| adapter.targets.iter().find(|t| t.name == NAME).unwrap().clone();
    let (own, parts) = (find(&one), [find(&first), find(&other)]);
    let both = parts[0].cols.iter().filter(|col| parts[1].cols.contains(col)).count();
    assert_eq!(own.cols.len(), 4 + 7 - both);
    let right = 0.5 * change(&base, &first, NAME) - 1.5 * change(&base, &other, NAME);
    let found = change(&base, &one, NAME);
    assert!(size(&(&found - &right)) < 1e-6 * size(&right));
    // A matrix that one of them changes.
    let alone = "blk.0.ffn_up";
    let right = 0.5 * change(&base, &first, alone);
    assert!(size(&(change(&base, &one, alone) - &right)) < 1e-6 * size(&right));
    assert_eq!(one.targets.len(), first.targets.len());
}

#[test]
fn linear_combines_u_where_columns_and_rows_are_the_same() {
    let base = base(Container::Folder);
    let [first, second] = alike(&base);
    let sources = [(Source::Cur(&first), 0.5), (Source::Cur(&second), -1.5)];
    let one = of_curmerge(&base, &sources, &way(Combination::Linear));
    let right = 0.5 * change(&base, &first, NAME) - 1.5 * change(&base, &second, NAME);
    assert!(size(&(change(&base, &one, NAME) - &right)) < 1e-6 * size(&right));
    assert_eq!(one.rank, first.rank);

    // Half of the numbers of each U stay, and only those with the sign of the larger one count.
    let options = CombineOptions { density: Some(0.5), ..way(Combination::Ties) };
    let sources = [(Source::Cur(&first), 1.0), (Source::Cur(&second), 1.0)];
    let one = of_curmerge(&base, &sources, &options);
    let target = |adapter: &Adapter| adapter.targets[0].u.clone();
    let kept = |u: Vec<f32>| {
        let mut sizes: Vec<f32> = u.iter().map(|x| x.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let least = sizes[sizes.len() / 2];
        u.into_iter().map(|x| if x.abs() >= least { x } else { 0.0 }).collect::<Vec<_>>()
    };
    let parts = [kept(target(&first)), kept(target(&second))];
    for (k, &found) in target(&one).iter().enumerate() {
        let (x, y) = (parts[0][k], parts[1][k]);
        let right = match x * y {
            product if product > 0.0 => 0.5 * (0.5 * x + 0.5 * y),
            product if product < 0.0 => 0.5 * if x.abs() > y.abs() { x } else { y },
            _ => 0.5 * (x + y),
        };
        assert!((found - right).abs() < 1e-6, "{k}: {x} {y}: {found} {right}");
    }
}

#[test]
fn other_columns_and_rows_are_refused_with_what_helps() {
    let base = base(Container::Gguf);
    let ([first, _], other) = (alike(&base), unlike(&base));
    let sources = [(Source::Cur(&first), 1.0), (Source::Cur(&other), 1.0)];
    for combination in [Combination::Linear, Combination::DareTies] {
        let density = combination.is_random().then_some(0.5);
        let options = CombineOptions { density, ..way(combination) };
        let line = combine(&base, &sources, &options, |_, _| ()).unwrap_err().to_string();
        assert!(
            line.contains("other columns and rows of 'blk.0.attn_q'") && line.contains("use cat"),
            "{line}"
        );
        assert!(line.contains("--seed"), "{line}");
    }
}

#[test]
fn both_kinds_combine_by_cat_and_svd() {
    let base = base(Container::Gguf);
    let other = unlike(&base);
    let third = Lora::open(fixture::path("combine/third"), &base).unwrap();
    let sources = [(Source::Lora(&third), -0.5), (Source::Cur(&other), 1.5)];
    let (own, scale) = third.target(&base, NAME).unwrap();
    let right = -0.5 * product(&own, scale) + 1.5 * change(&base, &other, NAME);
    let options = CombineOptions { svd_rank: Some(10), ..way(Combination::Svd) };
    for options in [way(Combination::Cat), options] {
        let one = lora(&base, &sources, &options);
        let target = one.targets.iter().find(|t| t.name == NAME).unwrap();
        assert_eq!(target.a.nrows(), 10);
        assert!(size(&(product(target, 1.0) - &right)) < 2e-6 * size(&right));
    }
    let line = combine(&base, &sources, &way(Combination::Linear), |_, _| ()).unwrap_err().to_string();
    assert!(line.contains("both kinds") && line.contains("svd"), "{line}");
}
