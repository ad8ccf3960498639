//! Where Functions are declared, as the flags say.

use std::{collections::BTreeSet, path::PathBuf};

use super::StoreKind;
use crate::function::{MAX_NAMESPACE, is_dns_label};

/// Where Functions are declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    Embedded,
    Kubernetes(Namespaces),
}

/// Which namespaces of a cluster are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// That of the kubeconfig's context, or of the pod.
    Own,
    These(BTreeSet<String>),
    All,
}

/// Flags that do not go together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreFlags {
    #[error("{0} works with --store kubernetes only")]
    NoCluster(&'static str),
    #[error(
        "--dir works with --store embedded only: in a cluster, `kubectl apply -f` declares functions"
    )]
    NoDirectories,
    #[error("--namespaces {0:?}: a namespace is a DNS label of at most {MAX_NAMESPACE} characters")]
    Namespace(String),
}

/// What was typed, checked.
pub(super) fn resolve(
    kind: StoreKind,
    namespaces: Vec<String>,
    all: bool,
    dirs: &[PathBuf],
) -> Result<StoreConfig, StoreFlags> {
    match kind {
        StoreKind::Embedded if all => Err(StoreFlags::NoCluster("--all-namespaces")),
        StoreKind::Embedded if !namespaces.is_empty() => Err(StoreFlags::NoCluster("--namespaces")),
        StoreKind::Embedded => Ok(StoreConfig::Embedded),
        StoreKind::Kubernetes if !dirs.is_empty() => Err(StoreFlags::NoDirectories),
        StoreKind::Kubernetes if all => Ok(StoreConfig::Kubernetes(Namespaces::All)),
        StoreKind::Kubernetes if namespaces.is_empty() => {
            Ok(StoreConfig::Kubernetes(Namespaces::Own))
        }
        StoreKind::Kubernetes => {
            let strange = namespaces
                .iter()
                .find(|name| !is_dns_label(name, MAX_NAMESPACE));
            match strange {
                Some(name) => Err(StoreFlags::Namespace(name.clone())),
                None => Ok(StoreConfig::Kubernetes(Namespaces::These(
                    namespaces.into_iter().collect(),
                ))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_together_or_are_refused_by_name() {
        let (embedded, kubernetes) = (StoreKind::Embedded, StoreKind::Kubernetes);
        let these = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            Ok(StoreConfig::Kubernetes(Namespaces::These(names.collect())))
        };
        for (kind, namespaces, all, dir, expected) in [
            (embedded, &[][..], false, true, Ok(StoreConfig::Embedded)),
            (
                embedded,
                &["a"],
                false,
                false,
                Err(StoreFlags::NoCluster("--namespaces")),
            ),
            (
                embedded,
                &[],
                true,
                false,
                Err(StoreFlags::NoCluster("--all-namespaces")),
            ),
            (
                kubernetes,
                &[],
                false,
                false,
                Ok(StoreConfig::Kubernetes(Namespaces::Own)),
            ),
            (
                kubernetes,
                &[],
                true,
                false,
                Ok(StoreConfig::Kubernetes(Namespaces::All)),
            ),
            (kubernetes, &["b", "a"], false, false, these(&["a", "b"])),
            (
                kubernetes,
                &["a", "B"],
                false,
                false,
                Err(StoreFlags::Namespace("B".into())),
            ),
            (kubernetes, &[], false, true, Err(StoreFlags::NoDirectories)),
        ] {
            let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
            let dirs: &[PathBuf] = if dir { &["d".into()] } else { &[] };
            assert_eq!(resolve(kind, namespaces, all, dirs), expected);
        }
    }
}
