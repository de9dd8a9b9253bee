//! The JSON Schema of the file, for editors: from the settings' own types and docs.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::raw;

/// The schema of a configuration file. It takes whatever the gateway takes, and says nothing of
/// what only a look at the whole file can tell.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<raw::File>().to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "Retort configuration".into());
    }
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    loosen(&mut schema, &definitions);
    schema
}

/// What the reading of YAML allows beyond the types: kinds written bare, variables for numbers.
fn loosen(schema: &mut Value, definitions: &Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| loosen(item, definitions)),
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                // Examples and defaults are values, not schemas.
                if !matches!(key.as_str(), "examples" | "default" | "const" | "enum") {
                    loosen(value, definitions);
                }
            }
            take_bare_kinds(map, definitions);
            take_variables(map);
            take_plain_text(map);
        }
        _ => {}
    }
}

/// A kind whose settings all have defaults may stand alone: `request_id` for `{request_id: {}}`.
fn take_bare_kinds(map: &mut Map<String, Value>, definitions: &Value) {
    let Some(variants) = map.get_mut("oneOf").and_then(Value::as_array_mut) else {
        return;
    };
    let bare: Vec<Value> = variants
        .iter()
        .filter_map(|variant| bare_kind(variant, definitions))
        .collect();
    if !bare.is_empty() {
        variants.push(json!({"type": "string", "enum": bare}));
    }
}

fn bare_kind(variant: &Value, definitions: &Value) -> Option<Value> {
    let properties = variant.get("properties")?.as_object()?;
    let (kind, settings) = properties.iter().next()?;
    let is_kind = properties.len() == 1 && variant.get("required")?.as_array()? == &[json!(kind)];
    let settings = resolve(settings, definitions);
    let is_map = settings.get("type")? == "object";
    let needs_none = settings
        .get("required")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    (is_kind && is_map && needs_none).then(|| json!(kind))
}

fn resolve<'v>(schema: &'v Value, definitions: &'v Value) -> &'v Value {
    let name = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| path.strip_prefix("#/$defs/"));
    name.and_then(|name| definitions.get(name))
        .unwrap_or(schema)
}

/// `weight: "${WEIGHT}"` is a number once it is read.
fn take_variables(map: &mut Map<String, Value>) {
    let is_plain = |name: &Value| matches!(name.as_str(), Some("integer" | "number" | "boolean"));
    let needs_variable = match map.get("type") {
        Some(Value::Array(names)) => {
            names.iter().any(is_plain) && !names.contains(&json!("string"))
        }
        Some(name) => is_plain(name),
        None => false,
    };
    if needs_variable {
        let description = map.remove("description");
        let typed = Value::Object(std::mem::take(map));
        let variable = json!({"type": "string", "pattern": r"\$\{"});
        if let Some(description) = description {
            map.insert("description".into(), description);
        }
        map.insert("anyOf".into(), json!([typed, variable]));
    }
}

/// Where text is due, a number or a truth value is text as it is written.
fn take_plain_text(map: &mut Map<String, Value>) {
    let is_free = ["pattern", "format", "enum", "const", "minLength"]
        .iter()
        .all(|key| !map.contains_key(*key));
    if !is_free {
        return;
    }
    match map.get_mut("type") {
        Some(name) if name == "string" => *name = json!(["string", "number", "boolean"]),
        Some(Value::Array(names))
            if names.contains(&json!("string")) && !names.contains(&json!("number")) =>
        {
            names.extend([json!("number"), json!("boolean")]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sections;

    #[test]
    fn the_schema_has_every_section_and_nothing_else() {
        let schema = schema();
        let properties = schema["properties"].as_object().expect("sections");
        let mut keys: Vec<_> = properties.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut expected = sections::KEYS;
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn every_key_is_described() {
        fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (key, property) in properties {
                    let is_kind = schema["required"] == json!([key]) && properties.len() == 1;
                    if property.get("description").is_none()
                        && property.get("$ref").is_none()
                        && !is_kind
                    {
                        missing.push(format!("{path}.{key}"));
                    }
                }
            }
            match schema {
                Value::Object(map) => map
                    .iter()
                    .for_each(|(key, value)| walk(&format!("{path}/{key}"), value, missing)),
                Value::Array(items) => items.iter().for_each(|value| walk(path, value, missing)),
                _ => {}
            }
        }
        let mut missing = Vec::new();
        walk("", &schema(), &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn kinds_without_needs_may_stand_bare_and_variables_for_numbers() {
        let text = schema().to_string();
        assert!(
            text.contains(r#"{"type":"string","enum":["request_id""#),
            "{text}"
        );
        assert!(
            text.contains(r#"{"type":"string","pattern":"\\$\\{"}"#),
            "{text}"
        );
    }
}
