//! Where settings come from: a file, the environment and the command line.
//!
//! They are handed on in this order, so that the later one wins, and each says where it stood. Names are looked up
//! here: one that is none is an error wherever it stands, because a setting with a slip in its name would do nothing.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lexopt::prelude::*;

/// What variables of this program begin with; no other may.
const PREFIX: &str = "MINI_PROGRAM_";
/// Bytes of a file of settings: a hundred times what all of them take.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// The names that there are, as on the command line and without the dashes.
pub struct Names {
    pub valued: &'static [&'static str],
    /// Those that need no value on the command line.
    pub switches: &'static [&'static str],
}

/// One setting, as it was written.
pub struct Setting {
    pub name: &'static str,
    pub value: String,
    /// Where it stood, and under which name.
    pub origin: String,
}

/// What the command line asks for.
pub enum Asked {
    Help,
    Version,
    /// In the order of their weight: of two with one name the later counts.
    Settings(Vec<Setting>),
}

/// What is wrong with the settings.
#[derive(Debug)]
pub struct Wrong(pub String);

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Wrong {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

impl Setting {
    /// Its value; an error says where it stood.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Wrong> {
        read(&self.value).map_err(|why| Wrong(format!("{} {:?}: {why}", self.origin, self.value)))
    }
}

impl Names {
    fn find(&self, is_it: impl Fn(&str) -> bool) -> Option<&'static str> {
        self.valued.iter().chain(self.switches).copied().find(|name| is_it(name))
    }

    /// All settings. The file is the one that `--config` names, or its variable.
    pub fn read(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Asked, Wrong> {
        let mut given = Vec::new();
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut config = None;
        while let Some(argument) = parser.next()? {
            let name = match argument {
                Long("help") | Short('h') => return Ok(Asked::Help),
                Long("version") | Short('V') => return Ok(Asked::Version),
                Long("config") => {
                    config = Some(parser.value()?);
                    continue;
                }
                Long(text) => self.find(|name| name == text),
                _ => None,
            };
            let Some(name) = name else { return Err(argument.unexpected().into()) };
            let value = if self.switches.contains(&name) {
                parser.optional_value().unwrap_or_else(|| "true".into())
            } else {
                parser.value()?
            };
            given.push(Setting { name, value: value.string()?, origin: format!("--{name}") });
        }

        let (variables, named) = self.of_environment(environment)?;
        let mut settings = match config.or(named) {
            Some(path) => self.of_file(Path::new(&path))?,
            None => Vec::new(),
        };
        settings.extend(variables);
        settings.extend(given);
        Ok(Asked::Settings(settings))
    }

    /// The variables that are settings, and the file that one of them names.
    fn of_environment(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Vec<Setting>, Option<OsString>), Wrong> {
        let (mut settings, mut config) = (Vec::new(), None);
        for (origin, value) in environment {
            if !origin.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            if variable("config") == *origin {
                config = Some(value);
                continue;
            }
            let origin = origin.to_string_lossy().into_owned();
            let Some(name) = self.find(|name| variable(name) == *origin) else {
                return Err(Wrong(format!("{origin}, in the environment: there is no such option")));
            };
            let Ok(value) = value.into_string() else {
                return Err(Wrong(format!("{origin}, in the environment: is not UTF-8")));
            };
            settings.push(Setting { name, value, origin });
        }
        Ok((settings, config))
    }

    fn of_file(&self, path: &Path) -> Result<Vec<Setting>, Wrong> {
        let shown = path.display();
        let text = read_some(path).map_err(|error| Wrong(format!("--config {shown}: {error}")))?;
        let mut settings: Vec<Setting> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{shown}:{}", index + 1);
            let Some((name, value)) = line.split_once('=') else {
                return Err(Wrong(format!("{place}: {line:?} is no `name = value`")));
            };
            let origin = format!("{place}: {}", name.trim());
            let Some(name) = self.find(|known| known == name.trim()) else {
                return Err(Wrong(format!("{origin}: there is no such option")));
            };
            if settings.iter().any(|setting| setting.name == name) {
                return Err(Wrong(format!("{origin}: stands in this file twice")));
            }
            settings.push(Setting { name, value: value.trim().to_owned(), origin });
        }
        Ok(settings)
    }
}

/// The variable of an option.
fn variable(name: &str) -> OsString {
    let name = name.to_ascii_uppercase().replace('-', "_");
    OsStr::new(&format!("{PREFIX}{name}")).to_owned()
}

/// A whole file, unless it is too long to be one of settings.
fn read_some(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("is longer than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok(text)
}
