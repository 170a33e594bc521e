//! An image's configuration: what a container of it runs unless told otherwise, and the image's history.
//!
//! The names are those of the OCI image specification ("Image Configuration") and, for what it leaves to Docker, of
//! Docker's image format 1.2. What is not known here is kept as it is: a build on an image must not lose parts of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, in Go's words.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// What a container is started with.
    #[serde(default)]
    pub config: Defaults,
    /// The layers.
    pub rootfs: RootFs,
    /// The instructions that made it.
    #[serde(default)]
    pub history: Vec<History>,
    /// What this does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a container is started with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Defaults {
    /// Who runs the program: names or ids, `user[:group]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(default, skip_serializing_if = "none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    /// `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "none")]
    pub env: Option<Vec<String>>,
    /// The program.
    #[serde(default, skip_serializing_if = "none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program where there is no entry point.
    #[serde(default, skip_serializing_if = "none")]
    pub cmd: Option<Vec<String>>,
    /// Directories whose content outlives containers.
    #[serde(default, skip_serializing_if = "none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Facts about the image.
    #[serde(default, skip_serializing_if = "none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that ends the program.
    #[serde(default, skip_serializing_if = "none")]
    pub stop_signal: Option<String>,
    /// How to ask whether the program is well.
    #[serde(default, skip_serializing_if = "none")]
    pub healthcheck: Option<HealthConfig>,
    /// The shell of commands given as text.
    #[serde(default, skip_serializing_if = "none")]
    pub shell: Option<Vec<String>>,
    /// Instructions for whoever builds on the image.
    #[serde(default, skip_serializing_if = "none")]
    pub on_build: Option<Vec<String>>,
    /// What this does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn none<T>(option: &Option<T>) -> bool {
    option.is_none()
}

/// A health check as Docker keeps it; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `CMD` and words, `CMD-SHELL` and a text, or `NONE`.
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(default, skip_serializing_if = "none")]
    pub interval: Option<u64>,
    /// How long one may take.
    #[serde(default, skip_serializing_if = "none")]
    pub timeout: Option<u64>,
    /// How long failures do not count at first.
    #[serde(default, skip_serializing_if = "none")]
    pub start_period: Option<u64>,
    /// Time between two checks during that.
    #[serde(default, skip_serializing_if = "none")]
    pub start_interval: Option<u64>,
    /// How many failures make the program unwell.
    #[serde(default, skip_serializing_if = "none")]
    pub retries: Option<u32>,
}

/// The layers, from the bottom up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed archives.
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs {
            kind: "layers".into(),
            diff_ids: Vec::new(),
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// The configuration of an image without anything, for this machine.
    pub fn empty() -> ImageConfig {
        ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..ImageConfig::default()
        }
    }

    /// Sets an environment variable, in its place if it is there already.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let variable = format!("{name}={value}");
        let env = self.config.env.get_or_insert_default();
        match env.iter_mut().find(|other| name_of(other) == name) {
            Some(other) => *other = variable,
            None => env.push(variable),
        }
    }

    /// An environment variable's value.
    pub fn env(&self, name: &str) -> Option<&str> {
        let env = self.config.env.as_deref().unwrap_or_default();
        let variable = env.iter().find(|variable| name_of(variable) == name)?;
        Some(variable.split_once('=').map_or("", |(_, value)| value))
    }
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_survives() {
        let text = r#"{"architecture":"amd64","config":{"Cmd":["a"],"ArgsEscaped":true,"Env":["A=1"]},"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"variant":"v3"}"#;
        let config: Result<ImageConfig, _> = serde_json::from_str(text);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let again = serde_json::to_value(&config).unwrap_or_default();
        assert_eq!(again["variant"], "v3");
        assert_eq!(again["config"]["ArgsEscaped"], true);
    }

    #[test]
    fn variables_keep_their_place() {
        let mut config = ImageConfig::empty();
        for (name, value) in [("A", "1"), ("AB", "2"), ("A", "3=4")] {
            config.set_env(name, value);
        }
        assert_eq!(config.config.env, Some(vec!["A=3=4".into(), "AB=2".into()]));
        assert_eq!(config.env("A"), Some("3=4"));
        assert_eq!(config.env("B"), None);
    }
}
