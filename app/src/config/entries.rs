//! The file and the environment, brought into one form: per section, known keys with their values and places.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::schema::{Section, section_names};
use super::values::Fields;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// A fraction, as written.
    Float(String),
    Boolean(bool),
    /// From the environment: text that may stand for any type.
    Variable(String),
    /// A type that no key takes; its name.
    Other(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// One section, or one camera.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: BTreeMap<&'static str, Entry>,
}

#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    sections: BTreeMap<Section, Table>,
    cameras: Vec<Table>,
}

/// Which camera a variable means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Selector {
    Index(usize),
    Id(String),
}

impl Document {
    pub(super) fn read(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let line = |offset: usize| {
            let before = text.get(..offset).unwrap_or_default();
            Place::Line(file.to_owned(), 1 + before.matches('\n').count())
        };
        // Only the message is taken over: the error's own text quotes the line, which may hold a password.
        let root = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
            place: line(e.span().map_or(0, |span| span.start)),
            reason: e.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        let mut document = Self { file: file.to_owned(), sections: BTreeMap::new(), cameras: Vec::new() };
        for (name, value) in root.get_ref() {
            let place = line(name.span().start);
            let Some(section) = Section::find(name.get_ref()) else {
                let key = name.get_ref().to_string();
                return Err(ConfigError::UnknownKey { place, key, accepted: section_names() });
            };
            let wrong = |shape: &str| ConfigError::BadValue {
                place: place.clone(),
                key: section.name().to_owned(),
                found: None,
                accepted: shape.to_owned(),
            };
            if section == Section::Camera {
                let tables = value.get_ref().as_array().ok_or_else(|| wrong("[[camera]], once for each camera"))?;
                for (index, table) in tables.iter().enumerate() {
                    let place = line(table.span().start);
                    let table = table.get_ref().as_table().ok_or_else(|| wrong("[[camera]], once for each camera"))?;
                    let prefix = format!("camera[{index}]");
                    document.cameras.push(read_table(section, &prefix, table, place, &line)?);
                }
            } else {
                let table = value.get_ref().as_table().ok_or_else(|| wrong(&format!("[{}]", section.name())))?;
                document.sections.insert(section, read_table(section, section.name(), table, place.clone(), &line)?);
            }
        }
        Ok(document)
    }

    /// Lays the variables that are settings over the file.
    pub(super) fn overlay(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        let mut of_cameras = BTreeMap::new();
        for (name, value) in variables {
            let Some((section, key)) = name.strip_prefix("MOS_").and_then(|rest| rest.split_once("__")) else {
                continue;
            };
            let unknown = |accepted: String| {
                let key = format!("{section}__{key}").to_ascii_lowercase().replace("__", ".");
                ConfigError::UnknownKey { place: Place::Variable(name.clone()), key, accepted }
            };
            let Some(section) = Section::find(&section.to_ascii_lowercase()) else {
                return Err(unknown(section_names()));
            };
            let (selector, key) = match section {
                Section::Camera => {
                    let (selector, key) = key.rsplit_once("__").ok_or_else(|| unknown(camera_variables(section)))?;
                    (Some(selector), key)
                }
                _ => (None, key),
            };
            let Some(key) = section.key(&key.to_ascii_lowercase()) else {
                return Err(unknown(match selector {
                    Some(_) => camera_variables(section),
                    None => section.keys().join(", "),
                }));
            };
            let entry = Entry { value: Value::Variable(value), place: Place::Variable(name.clone()) };
            if let Some(selector) = selector {
                of_cameras.insert((Selector::read(selector), key), entry);
            } else {
                let place = entry.place.clone();
                let table = self.sections.entry(section);
                let table = table.or_insert_with(|| Table { place, entries: BTreeMap::new() });
                table.entries.insert(key, entry);
            }
        }
        // Places come before ids in this order, so that an added camera can be meant by its id as well.
        for ((selector, key), entry) in of_cameras {
            self.camera(&selector, &entry.place)?.entries.insert(key, entry);
        }
        Ok(())
    }

    fn camera(&mut self, selector: &Selector, place: &Place) -> Result<&mut Table, ConfigError> {
        let count = self.cameras.len();
        let index = match selector {
            Selector::Index(index) if *index == count => {
                self.cameras.push(Table { place: place.clone(), entries: BTreeMap::new() });
                Some(count)
            }
            Selector::Index(index) => (*index < count).then_some(*index),
            Selector::Id(id) => self.cameras.iter().position(|camera| camera.id() == Some(id)),
        };
        match index.and_then(|index| self.cameras.get_mut(index)) {
            Some(camera) => Ok(camera),
            None => Err(ConfigError::UnknownKey {
                place: place.clone(),
                key: match selector {
                    Selector::Index(index) => format!("camera[{index}]"),
                    Selector::Id(id) => format!("camera '{id}'"),
                },
                accepted: format!("a place from 0 to {count}, or the id of a camera in the file"),
            }),
        }
    }

    pub(super) fn section(&self, section: Section) -> Fields<'_> {
        Fields::new(section.name().to_owned(), self.sections.get(&section), Place::File(self.file.clone()))
    }

    pub(super) fn cameras(&self) -> impl Iterator<Item = Fields<'_>> {
        self.cameras.iter().enumerate().map(|(index, table)| {
            let name = match table.id() {
                Some(id) if mos_hal::media::LensId::new(id).is_ok() => format!("camera '{id}'"),
                _ => format!("camera[{index}]"),
            };
            Fields::new(name, Some(table), table.place.clone())
        })
    }
}

impl Table {
    fn id(&self) -> Option<&str> {
        match self.entries.get("id").map(|entry| &entry.value) {
            Some(Value::Text(id) | Value::Variable(id)) => Some(id),
            _ => None,
        }
    }
}

impl Selector {
    fn read(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Id(text.to_ascii_lowercase()), Self::Index)
    }
}

fn camera_variables(section: Section) -> String {
    let keys = section.keys().iter().map(|key| key.to_ascii_uppercase()).collect::<Vec<_>>();
    format!("MOS_CAMERA__<place or id>__ and one of {}", keys.join(", "))
}

fn read_table(
    section: Section,
    prefix: &str,
    table: &DeTable<'_>,
    place: Place,
    line: &impl Fn(usize) -> Place,
) -> Result<Table, ConfigError> {
    let mut entries = BTreeMap::new();
    for (name, value) in table {
        let place = line(name.span().start);
        let Some(key) = section.key(name.get_ref()) else {
            return Err(ConfigError::UnknownKey {
                place,
                key: format!("{prefix}.{}", name.get_ref()),
                accepted: section.keys().join(", "),
            });
        };
        entries.insert(key, Entry { value: read_value(value), place });
    }
    Ok(Table { place, entries })
}

fn read_value(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        other => Value::Other(other.type_str()),
    }
}
