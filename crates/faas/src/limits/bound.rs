//! Bounds as a list: each has a name, and is shown and set as text, so that a settings file can name
//! any of them.

use crate::quantity;
use std::time::Duration;

/// One bound as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Such as `payload-bytes-max`, or `builds.time`.
    pub name: String,
    /// Its value, as [`super::Limits::set`] reads it.
    pub value: String,
    /// What it bounds.
    pub meaning: &'static str,
}

/// Why a bound can't be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// No bound has this name.
    #[error("there is no limit named {0:?}; tinyfaas config lists them")]
    Unknown(String),
    /// The value is not of its kind, or zero.
    #[error("{value:?} is no value of {name}; {hint}")]
    Value {
        /// Its name.
        name: String,
        /// What was given.
        value: String,
        /// What to write instead.
        hint: &'static str,
    },
    /// The value is out of what the protocol or the system takes.
    #[error("{name} must be at most {max}, got {value}")]
    Range {
        /// Its name.
        name: &'static str,
        /// The largest value.
        max: String,
        /// What was given.
        value: String,
    },
    /// Two bounds contradict each other.
    #[error("{smaller} must not be larger than {larger}; change one of them")]
    Order {
        /// The one that must be smaller.
        smaller: &'static str,
        /// The other.
        larger: &'static str,
    },
}

/// A bound, or a group of bounds.
pub(super) trait Setting {
    /// Adds what this is to `list`.
    fn list(&self, name: String, meaning: &'static str, list: &mut Vec<Bound>);

    /// Sets what `path` names within this; `name` is the whole name.
    fn set(&mut self, path: Option<&str>, name: &str, value: &str) -> Result<(), BoundError>;
}

/// A value that a person writes.
trait Written: Sized {
    fn read(name: &str, text: &str) -> Result<Self, &'static str>;
    fn show(&self, name: &str) -> String;
}

impl Written for Duration {
    fn read(_name: &str, text: &str) -> Result<Self, &'static str> {
        let time = quantity::time(text).filter(|time| !time.is_zero());
        time.ok_or(quantity::TIME_HINT)
    }

    fn show(&self, _name: &str) -> String {
        quantity::show_time(*self)
    }
}

macro_rules! written_numbers {
    ($($number:ty),*) => {$(
        impl Written for $number {
            fn read(name: &str, text: &str) -> Result<Self, &'static str> {
                let (number, hint) = if is_size(name) {
                    (quantity::bytes(text), quantity::BYTES_HINT)
                } else {
                    (text.trim().parse().ok(), "write a whole number from 1 on")
                };
                let number = number.and_then(|number: u64| Self::try_from(number).ok());
                number.filter(|&number| number > 0).ok_or(hint)
            }

            fn show(&self, name: &str) -> String {
                if is_size(name) {
                    quantity::show_bytes(u64::try_from(*self).unwrap_or(u64::MAX))
                } else {
                    self.to_string()
                }
            }
        }
    )*};
}

written_numbers!(u16, u32, u64, usize);

fn is_size(name: &str) -> bool {
    name.split(['-', '.']).any(|word| word == "bytes")
}

impl<T: Written> Setting for T {
    fn list(&self, name: String, meaning: &'static str, list: &mut Vec<Bound>) {
        list.push(Bound {
            value: self.show(&name),
            name,
            meaning,
        });
    }

    fn set(&mut self, path: Option<&str>, name: &str, value: &str) -> Result<(), BoundError> {
        if path.is_some() {
            return Err(BoundError::Unknown(name.to_owned()));
        }
        *self = Self::read(name, value).map_err(|hint| BoundError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            hint,
        })?;
        Ok(())
    }
}

/// The name of a field of a group: dashes for underscores, as in the names of all settings.
pub(super) fn within(group: &str, field: &str) -> String {
    let field = field.replace('_', "-");
    if group.is_empty() {
        return field;
    }
    format!("{group}.{field}")
}

/// Declares a struct of bounds with their defaults, and makes it a group of settings.
macro_rules! bounds {
    (
        $(#[$of_struct:meta])*
        pub struct $struct:ident {
            $($(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $default:expr,)+
        }
    ) => {
        $(#[$of_struct])*
        pub struct $struct {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $struct {
            #[expect(clippy::allow_attributes, reason = "only one of the lists is so long")]
            #[allow(clippy::too_many_lines, reason = "it is a list, a line for each bound")]
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::limits::bound::Setting for $struct {
            fn list(
                &self,
                group: String,
                _meaning: &'static str,
                list: &mut Vec<$crate::limits::bound::Bound>,
            ) {
                $(
                    let name = $crate::limits::bound::within(&group, stringify!($field));
                    self.$field.list(name, concat!($($doc),+).trim_ascii(), list);
                )+
            }

            fn set(
                &mut self,
                path: Option<&str>,
                name: &str,
                value: &str,
            ) -> Result<(), $crate::limits::bound::BoundError> {
                use $crate::limits::bound::{BoundError, within};
                let path = path.unwrap_or_default();
                let (first, rest) = match path.split_once('.') {
                    Some((first, rest)) => (first, Some(rest)),
                    None => (path, None),
                };
                $(
                    if first == within("", stringify!($field)) {
                        return self.$field.set(rest, name, value);
                    }
                )+
                Err(BoundError::Unknown(name.to_owned()))
            }
        }
    };
}

pub(super) use bounds;
