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

/// One section, or one of several.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
pub(super) struct Document {
    file: PathBuf,
    sections: BTreeMap<Section, Table>,
    /// Cameras and destinations.
    several: BTreeMap<Section, Vec<Table>>,
}

/// Which of several a variable means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Selector {
    Index(usize),
    Id(String),
}

impl Document {
    pub(super) fn read(file: &Path, text: &str) -> Result<Self, ConfigError> {
        // Looked for once: every key has a place.
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |offset: usize| Place::Line(file.to_owned(), 1 + ends.partition_point(|end| *end < offset));
        // Only the message is taken over: the error's own text quotes the line, which may hold a password.
        let root = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
            place: line(e.span().map_or(0, |span| span.start)),
            reason: e.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        let mut document = Self { file: file.to_owned(), sections: BTreeMap::new(), several: BTreeMap::new() };
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
            if section.id_key().is_some() {
                let shape = format!("[[{0}]], once for each {0}", section.name());
                let tables = value.get_ref().as_array().ok_or_else(|| wrong(&shape))?;
                for (index, table) in tables.iter().enumerate() {
                    let place = line(table.span().start);
                    let table = table.get_ref().as_table().ok_or_else(|| wrong(&shape))?;
                    let prefix = format!("{}[{index}]", section.name());
                    let table = read_table(section, &prefix, table, place, &line)?;
                    document.several.entry(section).or_default().push(table);
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
        let mut of_several = BTreeMap::new();
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
            let (selector, key) = if section.id_key().is_some() {
                let (selector, key) = key.rsplit_once("__").ok_or_else(|| unknown(variables_of(section)))?;
                (Some(selector), key)
            } else {
                (None, key)
            };
            let Some(key) = section.key(&key.to_ascii_lowercase()) else {
                return Err(unknown(match selector {
                    Some(_) => variables_of(section),
                    None => section.accepted_keys(),
                }));
            };
            let entry = Entry { value: Value::Variable(value), place: Place::Variable(name.clone()) };
            if let Some(selector) = selector {
                of_several.insert((section, Selector::read(selector), key), entry);
            } else {
                let place = entry.place.clone();
                let table = self.sections.entry(section);
                let table = table.or_insert_with(|| Table { place, entries: BTreeMap::new() });
                table.entries.insert(key, entry);
            }
        }
        // Places come before ids in this order, so that an added one can be meant by its id as well.
        for ((section, selector, key), entry) in of_several {
            self.one_of(section, &selector, &entry.place)?.entries.insert(key, entry);
        }
        Ok(())
    }

    fn one_of(&mut self, section: Section, selector: &Selector, place: &Place) -> Result<&mut Table, ConfigError> {
        let tables = self.several.entry(section).or_default();
        let count = tables.len();
        let index = match selector {
            Selector::Index(index) if *index == count => {
                tables.push(Table { place: place.clone(), entries: BTreeMap::new() });
                Some(count)
            }
            Selector::Index(index) => (*index < count).then_some(*index),
            Selector::Id(id) => tables.iter().position(|table| table.id(section) == Some(id)),
        };
        let kind = section.name();
        match index.and_then(|index| tables.get_mut(index)) {
            Some(table) => Ok(table),
            None => Err(ConfigError::UnknownKey {
                place: place.clone(),
                key: match selector {
                    Selector::Index(index) => format!("{kind}[{index}]"),
                    Selector::Id(id) => format!("{kind} '{id}'"),
                },
                accepted: format!(
                    "a place from 0 to {count}, or the {} of a {kind} in the file",
                    section.id_key().unwrap_or_default()
                ),
            }),
        }
    }

    pub(super) fn section(&self, section: Section) -> Fields<'_> {
        Fields::new(section.name().to_owned(), self.sections.get(&section), Place::File(self.file.clone()))
    }

    /// All of `section`, in the order of the file.
    pub(super) fn all(&self, section: Section) -> impl Iterator<Item = Fields<'_>> {
        self.several.get(&section).into_iter().flatten().enumerate().map(move |(index, table)| {
            let name = match table.id(section) {
                Some(id) if is_plain(id) => format!("{} '{id}'", section.name()),
                _ => format!("{}[{index}]", section.name()),
            };
            Fields::new(name, Some(table), table.place.clone())
        })
    }

    /// The keys of a section that has any.
    pub(super) fn keys(&self, section: Section) -> impl Iterator<Item = &str> {
        self.sections.get(&section).into_iter().flat_map(|table| table.entries.keys().map(String::as_str))
    }
}

/// Whether an id can be shown: what it is instead may be anything, even a password on the wrong line.
fn is_plain(id: &str) -> bool {
    id.len() <= 32 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

impl Table {
    fn id(&self, section: Section) -> Option<&str> {
        match self.entries.get(section.id_key()?).map(|entry| &entry.value) {
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

fn variables_of(section: Section) -> String {
    let keys = section.keys().iter().map(|key| key.to_ascii_uppercase()).collect::<Vec<_>>();
    let (kind, id) = (section.name().to_ascii_uppercase(), section.id_key().unwrap_or_default());
    format!("MOS_{kind}__<place or {id}>__ and one of {}", keys.join(", "))
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
                accepted: section.accepted_keys(),
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
