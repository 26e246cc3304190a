//! The fields of a JSON object, each checked on its own, so that an error can name it.

use crate::bad_field::BadField;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// The fields of a JSON object. Long texts are not copied until they are asked for.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    fields: HashMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Parses an object; `what` names it in errors.
    pub(crate) fn parse(json: &'a [u8], what: &str) -> Result<Self, BadField> {
        let fields = serde_json::from_slice(json).map_err(|error| {
            BadField::new(
                what,
                format!("it is no JSON object ({error})"),
                "send a JSON object",
            )
        })?;
        Ok(Self { fields })
    }

    /// The names, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// A text; none where the field is absent or null.
    pub(crate) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, BadField> {
        let Some(raw) = self.present(name) else {
            return Ok(None);
        };
        if let Ok(text) = serde_json::from_str::<&str>(raw) {
            return Ok(Some(Cow::Borrowed(text)));
        }
        let text = serde_json::from_str::<String>(raw);
        text.map(|text| Some(Cow::Owned(text)))
            .map_err(|_not_text| {
                BadField::new(name, "expected a JSON string", "send a JSON string")
            })
    }

    /// A text that must be there and not be empty; `example` shows one.
    pub(crate) fn required(&self, name: &str, example: &str) -> Result<Cow<'a, str>, BadField> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) | None => {
                let fix = format!("send it, such as {example}");
                Err(BadField::new(name, "it is missing or empty", fix))
            }
        }
    }

    /// A text, number or switch as a text; none where the field is absent or null.
    pub(crate) fn plain(&self, name: &str) -> Result<Option<String>, BadField> {
        let Some(raw) = self.present(name) else {
            return Ok(None);
        };
        match serde_json::from_str(raw) {
            Ok(Value::String(text)) => Ok(Some(text)),
            Ok(Value::Number(number)) => Ok(Some(number.to_string())),
            Ok(Value::Bool(switch)) => Ok(Some(switch.to_string())),
            Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => {
                let fix = "send a JSON string, number or boolean";
                Err(BadField::new(name, "it is a list or an object", fix))
            }
        }
    }

    /// Whether it is there and a list.
    pub(crate) fn is_list(&self, name: &str) -> bool {
        self.present(name).is_some_and(|raw| raw.starts_with('['))
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, BadField> {
        let Some(raw) = self.present(name) else {
            return Ok(Vec::new());
        };
        serde_json::from_str(raw).map_err(|_other| {
            let fix = "send a list of texts, such as [\"example.org\"]";
            BadField::new(name, "it is no list of texts", fix)
        })
    }

    /// Environment variables: a list of `"NAME=VALUE"`, or an object.
    pub(crate) fn envs(&self, name: &str) -> Result<Vec<(String, String)>, BadField> {
        let fix = "send a list such as [\"NAME=VALUE\"] or an object such as {\"NAME\": \"VALUE\"}";
        let bad = |reason| BadField::new(name, reason, fix);
        let Some(raw) = self.present(name) else {
            return Ok(Vec::new());
        };
        match serde_json::from_str(raw) {
            Ok(Value::Array(list)) => {
                let texts = list.iter().map(|value| {
                    value
                        .as_str()
                        .ok_or_else(|| bad("an element of the list is not a string"))
                });
                let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
                let given = texts.into_iter().filter(|text| !text.is_empty());
                given.map(|text| env(name, text)).collect()
            }
            Ok(Value::Object(object)) => {
                let pairs = object.into_iter().map(|(key, value)| match value {
                    Value::String(text) => Ok((key, text)),
                    Value::Number(number) => Ok((key, number.to_string())),
                    Value::Bool(switch) => Ok((key, switch.to_string())),
                    Value::Null | Value::Array(_) | Value::Object(_) => {
                        Err(bad("a value is not a string"))
                    }
                });
                pairs.collect()
            }
            Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => {
                Err(bad("it is neither a list nor an object"))
            }
        }
    }

    fn present(&self, name: &str) -> Option<&'a str> {
        let raw = self.fields.get(name)?.get();
        (raw != "null").then_some(raw)
    }
}

/// A variable written as `NAME=VALUE`.
pub(crate) fn env(field: &str, text: &str) -> Result<(String, String), BadField> {
    let Some((name, value)) = text.split_once('=') else {
        let reason = "a variable has no \"=\"";
        return Err(BadField::new(field, reason, "write it as NAME=VALUE"));
    };
    Ok((name.to_owned(), value.to_owned()))
}
