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

    /// Builds the agent's image and gives it to every node; returns its name.
    pub fn build_and_load(&self) -> Result<String> {
        let archive = self.layout().cache.join("discovery-image.tar");
        let builder = Self::source_tree().join("hack/image");
        run(&mut command(builder, [archive.as_os_str()]))?;
        self.load_image(&archive)
    }

    /// Builds, loads, and installs (or upgrades) both charts; waits until the agents are ready.
    pub fn install(&self, extra: &[&str]) -> Result<()> {
        let image = self.build_and_load()?;
        let charts = Self::source_tree().join("charts");
        let chart = |name: &str| charts.join(name).display().to_string();
        let wait = format!("{}s", ROLLED_OUT_WITHIN.as_secs());
        self.helm(&[
            "upgrade",
            "--install",
            "discovery-crds",
            &chart("discovery-crds"),
            "--wait",
            "--timeout",
            &wait,
        ])?;
        let (repository, tag) = split_image(&image)?;
        let (repository, tag) =
            (format!("image.repository={repository}"), format!("image.tag={tag}"));
        let product = chart("discovery");
        let words = [
            "upgrade",
            "--install",
            "discovery",
            &product,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--set",
            &repository,
            "--set",
            &tag,
            "--wait",
            "--timeout",
            &wait,
        ];
        self.helm(&[&words, extra].concat()).map(drop)
    }

    /// A contributor's loop: builds, loads, restarts the agents and waits for them.
    pub fn reload(&self) -> Result<()> {
        self.build_and_load()?;
        self.kubectl(&[
            "--namespace",
            NAMESPACE,
            "rollout",
            "restart",
            "daemonset/discovery-agent",
        ])?;
        let wait = format!("--timeout={}s", ROLLED_OUT_WITHIN.as_secs());
        self.kubectl(&[
            "--namespace",
            NAMESPACE,
            "rollout",
            "status",
            "daemonset/discovery-agent",
            &wait,
        ])
        .map(drop)
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
