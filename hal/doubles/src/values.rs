//! Properties of a double: specifications from its data file, and the values that somebody set.
//!
//! Promises that a value in the wrong unit or out of range does not pass in silence: it is written to the log as a fault, and
//! [`Values::verdict`] says it, which fails the element's next change of state.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use serde_json::json;

use crate::data::{Control, Property};
use crate::{enums, events};

/// Values of one object's properties.
#[derive(Debug)]
pub(crate) struct Values {
    element: &'static str,
    properties: &'static [Property],
    controls: &'static [Control],
    set: Mutex<HashMap<String, Stored>>,
    complaint: Mutex<Option<String>>,
}

/// A value that somebody set.
#[derive(Clone, Debug)]
enum Stored {
    Number(i64),
    Float(f64),
    Text(Option<String>),
    Structure(Option<gst::Structure>),
}

impl Stored {
    fn of(value: &glib::Value) -> Self {
        if let Some(number) = number_of(value) {
            Self::Number(number)
        } else if let Ok(number) = value.get::<f64>() {
            Self::Float(number)
        } else if let Ok(structure) = value.get::<Option<gst::Structure>>() {
            Self::Structure(structure)
        } else {
            Self::Text(value.get::<Option<String>>().unwrap_or_default())
        }
    }

    fn value(&self, kind: glib::Type) -> glib::Value {
        match self {
            Self::Number(n) if kind == glib::Type::I32 => (*n as i32).to_value(),
            Self::Number(n) if kind == glib::Type::U32 => (*n as u32).to_value(),
            Self::Number(n) if kind == glib::Type::BOOL => (*n != 0).to_value(),
            Self::Number(n) => {
                let class = glib::EnumClass::with_type(kind);
                class.and_then(|c| c.to_value(*n as i32)).unwrap_or_else(|| n.to_value())
            }
            Self::Float(n) => n.to_value(),
            Self::Text(text) => text.to_value(),
            Self::Structure(structure) => structure.to_value(),
        }
    }
}

/// Specifications of the properties of a data file.
pub(crate) fn specs(properties: &'static [Property]) -> Vec<glib::ParamSpec> {
    properties.iter().map(spec).collect()
}

fn spec(p: &'static Property) -> glib::ParamSpec {
    let mutable = match p.mutable.as_str() {
        "playing" => gst::PARAM_FLAG_MUTABLE_PLAYING,
        "paused" => gst::PARAM_FLAG_MUTABLE_PAUSED,
        "ready" => gst::PARAM_FLAG_MUTABLE_READY,
        _ => glib::ParamFlags::empty(),
    };
    let flags = mutable | if p.read_only { glib::ParamFlags::READABLE } else { glib::ParamFlags::READWRITE };
    let blurb = p.unit.as_deref().unwrap_or(&p.name);
    let default = p.default.as_ref().and_then(toml::Value::as_integer).unwrap_or(0);
    let (min, max) = (p.min.unwrap_or(i64::MIN), p.max.unwrap_or(i64::MAX));
    match p.kind.as_str() {
        "int" => {
            let within = |n: i64| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            let spec = glib::ParamSpecInt::builder(&p.name).minimum(within(min)).maximum(within(max));
            spec.default_value(within(default)).blurb(blurb).flags(flags).build()
        }
        "uint" => {
            let within = |n: i64| n.clamp(0, u32::MAX.into()) as u32;
            let spec = glib::ParamSpecUInt::builder(&p.name).minimum(within(min)).maximum(within(max));
            spec.default_value(within(default)).blurb(blurb).flags(flags).build()
        }
        "int64" => {
            let spec = glib::ParamSpecInt64::builder(&p.name).minimum(min).maximum(max);
            spec.default_value(default).blurb(blurb).flags(flags).build()
        }
        "double" => glib::ParamSpecDouble::builder(&p.name).blurb(blurb).flags(flags).build(),
        "bool" => {
            let default = p.default.as_ref().and_then(toml::Value::as_bool).unwrap_or(false);
            glib::ParamSpecBoolean::builder(&p.name).default_value(default).blurb(blurb).flags(flags).build()
        }
        "string" => {
            let default = p.default.as_ref().and_then(toml::Value::as_str);
            glib::ParamSpecString::builder(&p.name).default_value(default).blurb(blurb).flags(flags).build()
        }
        "structure" => glib::ParamSpecBoxed::builder::<gst::Structure>(&p.name).blurb(blurb).flags(flags).build(),
        "enum" => {
            let nicks: Vec<&str> = p.values.iter().map(|v| v.0.as_str()).collect();
            let name = format!("MosDouble-{}-{}", p.name, nicks.join("-"));
            let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            enums::param(&p.name, blurb, enums::enum_type(&name, &p.values), default as i32, flags)
        }
        other => panic!("property {}: no type {other}", p.name),
    }
}

impl Values {
    pub(crate) fn new(element: &'static str, properties: &'static [Property], controls: &'static [Control]) -> Self {
        Self { element, properties, controls, set: Mutex::default(), complaint: Mutex::default() }
    }

    /// Takes a value that GObject let pass. `state` is the owner's, as far as it has one.
    pub(crate) fn set(&self, owner: &str, state: gst::State, value: &glib::Value, spec: &glib::ParamSpec) {
        let text = value.serialize().map_or_else(|_| format!("{value:?}"), |t| t.to_string());
        let last = match spec.flags() {
            f if f.contains(gst::PARAM_FLAG_MUTABLE_PLAYING) => gst::State::Playing,
            f if f.contains(gst::PARAM_FLAG_MUTABLE_PAUSED) => gst::State::Paused,
            f if f.contains(gst::PARAM_FLAG_MUTABLE_READY) => gst::State::Ready,
            _ => gst::State::Null,
        };
        if state > last {
            let what = format!("{} = {text}: cannot be changed in {state:?}, only up to {last:?}", spec.name());
            return self.complain(owner, what);
        }
        events::event("property", self.element, owner, json!({"property": spec.name(), "value": text}));
        if let Some(property) = self.properties.iter().find(|p| p.name == spec.name())
            && let Some(number) = number_of(value)
            && let Some((low, high)) = property.plausible
            && !property.automatic.contains(&number)
            && !(low..=high).contains(&number)
        {
            let unit = property.unit.as_deref().unwrap_or("its unit");
            self.complain(
                owner,
                format!("{} is in {unit}: {number} is implausible, {low} to {high} is not", spec.name()),
            );
        }
        if spec.name() == "extra-controls" {
            self.check_controls(owner, value);
        }
        self.lock().insert(spec.name().to_owned(), Stored::of(value));
    }

    fn check_controls(&self, owner: &str, value: &glib::Value) {
        let Ok(Some(controls)) = value.get::<Option<gst::Structure>>() else { return };
        for (name, value) in controls.iter() {
            let Some(control) = self.controls.iter().find(|c| c.name == name.as_str()) else {
                self.complain(owner, format!("extra-controls: this device has no control {name}"));
                continue;
            };
            let unit = control.unit.as_deref().unwrap_or("no unit");
            match number_of(value) {
                None => self.complain(owner, format!("extra-controls: {name} is a number, not {value:?}")),
                Some(n) if !(control.min..=control.max).contains(&n) => {
                    let range = format!("{} to {}", control.min, control.max);
                    self.complain(owner, format!("extra-controls: {name} = {n} is out of range ({range}, {unit})"));
                }
                Some(n) if control.plausible.is_some_and(|(low, high)| !(low..=high).contains(&n)) => {
                    self.complain(owner, format!("extra-controls: {name} is in {unit}: {n} is implausible"));
                }
                Some(_) => {}
            }
        }
    }

    pub(crate) fn complain(&self, owner: &str, what: String) {
        events::fault(self.element, owner, &what);
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// The value now: what was set, else the default.
    pub(crate) fn get(&self, spec: &glib::ParamSpec) -> glib::Value {
        let stored = self.lock().get(spec.name()).cloned();
        stored.map_or_else(|| spec.default_value().clone(), |s| s.value(spec.value_type()))
    }

    /// A property as a number; an enum as its number. The default if it is not set.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match self.lock().get(name) {
            Some(Stored::Number(n)) => return Some(*n),
            Some(_) => return None,
            None => {}
        }
        let default = self.properties.iter().find(|p| p.name == name)?.default.as_ref()?;
        default.as_integer().or_else(|| default.as_bool().map(i64::from))
    }

    /// A property or, where the element has none of this name, a control.
    pub(crate) fn setting(&self, name: &str) -> Option<i64> {
        if self.properties.iter().any(|p| p.name == name) {
            return self.number(name);
        }
        let control = self.controls.iter().find(|c| c.name == name)?;
        let set = match self.lock().get("extra-controls") {
            Some(Stored::Structure(Some(controls))) => controls.value(name).ok().and_then(|v| number_of(v)),
            _ => None,
        };
        Some(set.unwrap_or(control.default))
    }

    /// A property as text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.lock().get(name) {
            Some(Stored::Text(text)) => return text.clone(),
            Some(Stored::Number(n)) => return Some(n.to_string()),
            _ => {}
        }
        let default = self.properties.iter().find(|p| p.name == name)?.default.as_ref()?;
        default.as_str().map(str::to_owned).or_else(|| default.as_integer().map(|n| n.to_string()))
    }

    /// What was wrong with a value that somebody set, if anything; forgotten once said.
    pub(crate) fn verdict(&self) -> Option<String> {
        let mine = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take();
        mine.or_else(|| refused(self.properties)).or_else(|| self.unaccompanied())
    }

    /// A property that was set although another one does not have the value that it needs.
    fn unaccompanied(&self) -> Option<String> {
        let needs = self.properties.iter().filter_map(|p| Some((p, p.only_with.as_ref()?)));
        let (property, (other, values)) = needs.into_iter().find(|(p, (other, values))| {
            let set = self.lock().contains_key(&p.name);
            set && self.setting(other).is_none_or(|n| !values.contains(&n))
        })?;
        let what = format!("{} is taken only where {other} is one of {values:?}", property.name);
        events::fault(self.element, self.element, &what);
        Some(what)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Stored>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(value: &glib::Value) -> Option<i64> {
    let number = value.get::<i32>().map(i64::from).or_else(|_| value.get::<u32>().map(i64::from));
    let number = number.or_else(|_| value.get::<i64>()).or_else(|_| value.get::<u64>().map(|n| n as i64));
    let number = number.or_else(|_| value.get::<bool>().map(i64::from)).ok();
    number.or_else(|| glib::EnumValue::from_value(value).map(|(_, v)| i64::from(v.value())))
}

/// Properties that GObject refused to set because the value was out of range. GObject only warns, on a log of its own.
static REFUSED: LazyLock<Mutex<Vec<(String, String)>>> = LazyLock::new(Mutex::default);

/// Listens for values that GObject refuses.
pub(crate) fn listen() {
    glib::log_set_handler(Some("GLib-GObject"), glib::LogLevels::LEVEL_WARNING, false, false, |_, _, message| {
        if let Some((_, rest)) = message.split_once("out of range for property '")
            && let Some((property, _)) = rest.split_once('\'')
        {
            events::fault("", property, message);
            let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
            refused.push((property.to_owned(), message.to_owned()));
        } else {
            log::warn!("GLib-GObject: {message}");
        }
    });
}

fn refused(properties: &[Property]) -> Option<String> {
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = refused.iter().position(|(name, _)| properties.iter().any(|p| p.name == *name))?;
    let (name, message) = refused.remove(at);
    let property = properties.iter().find(|p| p.name == name)?;
    let unit = property.unit.as_deref().unwrap_or("no unit");
    let range = format!("{} to {}", property.min.unwrap_or(i64::MIN), property.max.unwrap_or(i64::MAX));
    Some(format!("{message} ({name} is in {unit}, {range})"))
}
