//! Who we are to a registry: what `docker login` or `podman login` left in a file.

use std::path::PathBuf;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;

/// What Docker calls its own registry in that file.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The login for this registry; anonymous when there is none.
pub fn find(registry: &str) -> anyhow::Result<RegistryAuth> {
    for path in files() {
        let Ok(text) = std::fs::read(&path) else { continue };
        let config: serde_json::Value =
            serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))?;
        let key = if registry == "docker.io" { DOCKER_HUB } else { registry };
        if let Some(login) = config["auths"][key]["auth"].as_str() {
            return decode(login).with_context(|| format!("the login for {registry} in {} is none", path.display()));
        }
        let helper = config["credHelpers"][registry]
            .as_str()
            .or(config["credsStore"].as_str());
        if let Some(helper) = helper.filter(|_| config["auths"].get(key).is_some()) {
            bail!(
                "the login for {registry} is kept by the program docker-credential-{helper}, which is not asked; log in with podman login, or without a credential store"
            );
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// In the order in which podman looks (containers-auth.json(5)), Docker's last.
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = variable("HOME");
    [
        variable("REGISTRY_AUTH_FILE"),
        variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        variable("DOCKER_CONFIG").map(|directory| directory.join("config.json")),
        home.map(|home| home.join(".docker/config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `user:password` in base64, which hides nothing.
fn decode(login: &str) -> anyhow::Result<RegistryAuth> {
    let text = String::from_utf8(STANDARD.decode(login)?)?;
    let (user, password) = text.split_once(':').context("no colon in it")?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.to_owned()))
}
