//! The settings of transformers.js in a config.json.

use serde_json::{Map, Value as Json};

use super::options::OnnxType;
use crate::base::json;
use crate::convert::config_json::pretty;

/// The settings of a model: its file has the plain name, the type of its cache, and whether it has an
/// external file.
pub(super) fn settings(file_type: OnnxType, external: bool) -> Map<String, Json> {
    let mut settings = Map::new();
    settings.insert("dtype".into(), "fp32".into());
    if file_type == OnnxType::F16 {
        settings.insert("kv_cache_dtype".into(), "float16".into());
    }
    if external {
        settings.insert("use_external_data_format".into(), true.into());
    }
    settings
}

/// Puts the settings into the text of a config.json. They replace what it has of those that [`settings`] may
/// give; if it has none, they are appended, and the rest of the text stays as it is.
pub(super) fn with_settings(config: &mut Vec<u8>, settings: &Map<String, Json>) {
    const KEY: &str = "transformers.js_config";
    const OWN: [&str; 3] = ["dtype", "kv_cache_dtype", "use_external_data_format"];
    let Ok(mut json) = json::parse::<Map<String, Json>>(config) else { return };
    if let Some(standing) = json.get_mut(KEY) {
        let mut members = standing.as_object().cloned().unwrap_or_default();
        members.retain(|name, _| !OWN.contains(&name.as_str()));
        members.extend(settings.clone());
        *standing = members.into();
        *config = pretty(&json.into()).into();
        return;
    }
    let Some(end) = config.iter().rposition(|&byte| byte == b'}') else { return };
    let before = config[..end].trim_ascii_end().len();
    let comma = if json.is_empty() { "" } else { "," };
    let member = format!("{comma}\n  \"{KEY}\": {}\n", Json::from(settings.clone()));
    config.splice(before..end, member.into_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_stand_at_the_end_of_a_configuration_without() {
        let with = |config: &str| {
            let mut config = config.as_bytes().to_vec();
            with_settings(&mut config, &settings(OnnxType::F32, false));
            String::from_utf8(config).unwrap()
        };
        let right = "{\n  \"a\": {},\n  \"transformers.js_config\": {\"dtype\":\"fp32\"}\n}\n";
        assert_eq!(with("{\n  \"a\": {}\n}\n"), right);
        assert_eq!(with("{ }"), "{\n  \"transformers.js_config\": {\"dtype\":\"fp32\"}\n}");
        assert_eq!(with("no JSON }"), "no JSON }");
    }

    #[test]
    fn settings_stand_in_place_of_others() {
        let with = |standing: Json, settings: Map<String, Json>| -> Json {
            let mut config =
                json!({ "a": 1e-5, "transformers.js_config": standing }).to_string().into_bytes();
            with_settings(&mut config, &settings);
            let config: Json = serde_json::from_slice(&config).unwrap();
            assert_eq!(config["a"], 1e-5);
            config["transformers.js_config"].clone()
        };
        // SmolLM2's own.
        let standing = json!({ "kv_cache_dtype": { "fp16": "float16" } });
        let half = json!({ "dtype": "fp32", "kv_cache_dtype": "float16", "use_external_data_format": true });
        assert_eq!(with(standing.clone(), settings(OnnxType::F16, true)), half);
        assert_eq!(with(standing, settings(OnnxType::F32, false)), json!({ "dtype": "fp32" }));
        let standing = json!({ "use_external_data_format": true, "device": "webgpu", "dtype": "q4" });
        let right = json!({ "device": "webgpu", "dtype": "fp32" });
        assert_eq!(with(standing, settings(OnnxType::Q4_0, false)), right);
        assert_eq!(with(json!(null), settings(OnnxType::Q4_0, false)), json!({ "dtype": "fp32" }));
    }
}
