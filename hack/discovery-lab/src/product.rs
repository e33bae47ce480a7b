//! The product in the lab: its image into the nodes, its charts by Helm, as users install them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::{LabError, Result},
    lab::Lab,
    process::{command, run},
};

/// Where the product lives in the cluster.
pub const NAMESPACE: &str = "discovery-system";
/// From an image that is already on each node to agents that are ready.
const ROLLED_OUT_WITHIN: Duration = Duration::from_secs(180);

impl Lab {
    /// The product's source tree: `DISCOVERY_REPO`, or where this program was built.
    pub fn source_tree() -> PathBuf {
        std::env::var_os("DISCOVERY_REPO").map(PathBuf::from).unwrap_or_else(|| {
            let own = Path::new(env!("CARGO_MANIFEST_DIR"));
            own.ancestors().nth(2).unwrap_or(own).to_owned()
        })
    }

    /// Builds the agent's image (see hack/image) and gives it to every node; returns its name.
    pub fn build_and_load(&self) -> Result<String> {
        self.build_as(None)
    }

    // `profile` counts unless the user has chosen one by DISCOVERY_PROFILE.
    fn build_as(&self, profile: Option<&str>) -> Result<String> {
        self.say("building the agent and its image");
        let archive = self.layout().cache.join("discovery-image.tar");
        let builder = Self::source_tree().join("hack/image");
        let mut build = command(builder, [archive.as_os_str()]);
        if let (Some(profile), None) = (profile, std::env::var_os("DISCOVERY_PROFILE")) {
            build.env("DISCOVERY_PROFILE", profile);
        }
        self.say(run(&mut build)?.trim());
        self.load_image(&archive)
    }

    /// Builds, loads, and installs (or upgrades) both charts; waits until the agents are ready.
    pub fn install(&self, extra: &[&str]) -> Result<()> {
        let image = self.build_and_load()?;
        let definitions = Self::source_tree().join("charts/discovery-crds").display().to_string();
        self.helm(&["upgrade", "--install", "discovery-crds", &definitions, "--wait"])?;
        self.say("installing the charts, and waiting for the agents");
        self.upgrade(&image, extra)
    }

    /// A contributor's loop: a debug build, loaded, and the agents replaced; with the chart as it is now and
    /// the values of the installation.
    pub fn reload(&self) -> Result<()> {
        let image = self.build_as(Some("dev"))?;
        let agents = ["daemonset/discovery-agent", "--namespace", NAMESPACE];
        let path = "--output=jsonpath={.spec.template.spec.containers[0].image}";
        let before = self.kubectl(&[&["get"], &agents[..], &[path]].concat())?;
        self.say("replacing the agents");
        self.upgrade(&image, &["--reuse-values"])?;
        if before.trim() == image {
            // The same name for other bytes: Kubernetes has seen no change.
            self.kubectl(&[&["rollout", "restart"], &agents[..]].concat())?;
        }
        let wait = format!("--timeout={}s", ROLLED_OUT_WITHIN.as_secs());
        self.kubectl(&[&["rollout", "status"], &agents[..], &[&wait]].concat()).map(drop)
    }

    fn upgrade(&self, image: &str, extra: &[&str]) -> Result<()> {
        let (repository, tag) = split_image(image)?;
        let image = format!("image.repository={repository},image.tag={tag}");
        let chart = Self::source_tree().join("charts/discovery").display().to_string();
        let wait = format!("{}s", ROLLED_OUT_WITHIN.as_secs());
        let words = ["upgrade", "--install", "discovery", &chart, "--namespace", NAMESPACE];
        let more = ["--create-namespace", "--set", &image, "--wait", "--timeout", &wait];
        self.helm(&[&words, &more, extra].concat()).map(drop)
    }
}

fn split_image(image: &str) -> Result<(&str, &str)> {
    image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).ok_or_else(|| {
        LabError::Unexpected {
            what: "the name of the agent's image".into(),
            detail: format!("{image:?} has no tag"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_with_a_port_and_no_tag_is_refused() {
        assert_eq!(
            split_image("localhost/discovery:0.1.0").ok(),
            Some(("localhost/discovery", "0.1.0"))
        );
        assert!(split_image("localhost:5000/discovery").is_err());
    }
}
