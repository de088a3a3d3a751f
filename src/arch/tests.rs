//! Descriptions are consistent, and found by their names.

use std::collections::BTreeSet;

use super::*;

#[test]
fn descriptions_are_consistent() {
    let mut model_types = BTreeSet::new();
    for architecture in ALL {
        let class = &architecture.hugging_face;
        let name = class.class;
        assert!(!class.activation.names.is_empty(), "{name}");
        assert!(class.model_types.iter().all(|name| model_types.insert((*name, class.chosen_by))), "{name}");
        let genai = architecture.onnx.genai_type;
        let found = genai.and_then(by_genai_type);
        assert!(found.map(|found| found.name) == genai.map(|_| architecture.name), "{name}");
        let experts = !architecture.converter.experts.is_empty();
        assert_eq!(experts, architecture.has_experts(), "{name}");

        let alike = ALL.iter().filter(|other| other.models == architecture.models);
        assert_eq!(alike.count(), 1, "{name}: the models of a sibling");

        let names: Vec<&str> = architecture.names().map(|tensor| tensor.canonical).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{name}: a tensor twice");
        for (role, target) in architecture.tensors.targets {
            let known = match target.split_once('[') {
                Some((whole, _)) => architecture.parts(whole).iter().any(|(part, _)| part == role),
                None => architecture.line(&format!("blk.0.{target}")).is_some(),
            };
            assert!(known, "{name}: {target}");
        }
        for (fused, _) in architecture.tensors.fused {
            let fused = fused.replace("{}", "0");
            assert!(architecture.line(&format!("blk.0.{fused}")).is_some(), "{name}: {fused}");
        }
    }
}

/// What the converter writes is what llama.cpp reads and the family has.
#[test]
fn written_keys_belong_to_the_family() {
    for architecture in ALL {
        let Architecture { forward, gguf, converter, hugging_face: class, .. } = architecture;
        let name = class.class;
        let keys: Vec<Key> = converter.keys.iter().copied().flatten().copied().collect();
        let distinct = keys.iter().enumerate().all(|(i, key)| !keys[..i].contains(key));
        assert!(distinct, "{name}: a key twice");
        let requires = |key: Key, has: bool| assert!(!converter.writes(key) || has, "{name}: {key:?}");
        let equals = |key: Key, has: bool| assert_eq!(converter.writes(key), has, "{name}: {key:?}");

        requires(Key::Window, gguf.windows.is_some());
        requires(Key::WindowOrZero, class.windows != WindowedLayers::None);
        let local = [ClassOption::LocalRope, ClassOption::RopeByKind];
        equals(Key::LocalRopeBase, local.iter().any(|option| class.options.contains(option)));
        requires(Key::WindowPattern, converter.writes(Key::Window));
        let [scores, logits] = gguf.soft_caps.unwrap_or_default();
        equals(Key::AttentionCap, scores.is_some());
        equals(Key::LogitCap, logits.is_some());
        requires(Key::GivenLogitCap, gguf.soft_caps.is_some());
        assert_eq!(class.has(ClassOption::SoftCaps), gguf.soft_caps.is_some(), "{name}");
        equals(Key::Scales, class.has(ClassOption::Multipliers));
        equals(Key::LogitScale, class.has(ClassOption::LogitScale));

        let rms = converter.writes(Key::RmsEpsilon) || converter.writes(Key::RmsAsLayerEpsilon);
        assert!(forward.norm != NormKind::Rms || rms, "{name}");
        equals(Key::LayerEpsilon, forward.norm != NormKind::Rms);
        requires(Key::RopeBase, forward.positions != Positions::Learned);
        equals(Key::RopeScaling, converter.rope_types.contains(&RopeType::ByKeys));
        equals(Key::KeyValueHeads, class.heads != HeadKeys::Ungrouped);
        equals(Key::Experts, architecture.has_experts());
        requires(Key::ExpertFeedForward, architecture.has_experts());
    }
}

/// llama.cpp's converter permutes q and k only of families whose pairs are neighbours in GGUF.
#[test]
fn rotary_rows_are_permuted_for_interleaved_pairs_only() {
    for architecture in ALL {
        let permuted = architecture.names().any(|tensor| tensor.rotary_halves.is_some());
        let interleaved = architecture.forward.positions == Positions::RopeInterleaved;
        let name = architecture.hugging_face.class;
        assert!(interleaved || !permuted, "{name}");
    }
}

/// What llama.cpp assumes goes by GGUF's name. A family with a name of its own must not inherit it.
#[test]
fn assumptions_of_llama_cpp_are_not_inherited_under_another_name() {
    for architecture in ALL {
        let is_llama = architecture.name == "llama";
        assert_eq!(architecture.gguf.layers_of_70b.is_some(), is_llama, "{}", architecture.name);
        let scaled = architecture.gguf.width_scaled_layers;
        let others = ALL.iter().filter(|other| other.name != architecture.name);
        let shared = others.clone().any(|other| other.gguf.width_scaled_layers == scaled);
        assert!(scaled.is_empty() || !shared, "{}: {scaled:?} is a sibling's", architecture.name);
    }
}

#[test]
fn architectures_are_found_by_their_names() {
    for architecture in ALL {
        let chosen_by = architecture.hugging_face.chosen_by;
        let found =
            by_model_type(architecture.hugging_face.model_types[0], |key| chosen_by == Some(key)).unwrap();
        assert_eq!(found.models, architecture.models);
        let windows = architecture.gguf.windows.is_some();
        let found = by_gguf_name(architecture.name, architecture.has_experts(), windows).unwrap();
        assert_eq!(found.name, architecture.name);
    }
    assert!(by_model_type("", |_| false).is_none() && by_gguf_name("", false, false).is_none());
}

#[test]
fn blocks_are_known_by_the_prefixes_of_every_folder() {
    let all: BTreeSet<String> = ALL.iter().flat_map(|known| known.block_prefixes()).collect();
    let right = [
        "backbone.layers.",
        "ernie.layers.",
        "gpt_neox.layers.",
        "h.",
        "language_model.model.layers.",
        "model.language_model.layers.",
        "model.layers.",
        "transformer.h.",
    ];
    assert_eq!(all.into_iter().collect::<Vec<_>>(), right);
}
