//! Reads what BuildKit says: a graph whose vertices begin, write, and end.

use std::collections::{HashMap, HashSet};

use bollard::{
    moby::buildkit::v1::{StatusResponse, Vertex},
    models::{BuildInfo, BuildInfoAux},
};

use super::report::{Report, shown};

#[derive(Default)]
pub(super) struct Reader {
    /// Steps by the digest of their vertex; those of BuildKit's own are not among them.
    steps: HashMap<String, String>,
    begun: HashSet<String>,
}

impl Reader {
    /// Takes a record; false when it is of unknown shape.
    pub(super) fn read(&mut self, info: &BuildInfo, report: &mut Report) -> bool {
        match (&info.aux, &info.status) {
            (Some(BuildInfoAux::BuildKit(status)), _) => self.status(status, report),
            // The engine's own words around the graph.
            (None, Some(_)) => {}
            _ => return info.stream.is_some(),
        }
        true
    }

    fn status(&mut self, status: &StatusResponse, report: &mut Report) {
        for vertex in &status.vertexes {
            self.vertex(vertex, report);
        }
        for log in &status.logs {
            if let Some(step) = self.steps.get(&log.vertex) {
                report.step(step);
                report.output(&log.msg);
            }
        }
    }

    fn vertex(&mut self, vertex: &Vertex, report: &mut Report) {
        if let Some(step) = step(&vertex.name) {
            self.steps.insert(vertex.digest.clone(), step.clone());
            if vertex.started.is_some() && self.begun.insert(vertex.digest.clone()) {
                report.step(&step);
                if vertex.cached {
                    report.cached();
                }
            }
        }
        // Steps beside the one that failed end as cancelled.
        if !vertex.error.is_empty() && !vertex.error.contains("context canceled") {
            report.failed(&culprit(&vertex.name));
        }
    }
}

/// `[2/5] RUN make`, `[build 2/5] RUN make` → `RUN make`.
fn step(name: &str) -> Option<String> {
    let (place, step) = name.strip_prefix('[')?.split_once("] ")?;
    place
        .ends_with(|c: char| c.is_ascii_digit())
        .then(|| shown(step))
}

/// What failed, in words of the Dockerfile.
fn culprit(name: &str) -> String {
    if let Some(image) = name.strip_prefix("[internal] load metadata for ") {
        return shown(&format!("FROM {}", familiar(image)));
    }
    step(name).unwrap_or_else(|| shown(name))
}

/// The short name that people write.
fn familiar(image: &str) -> &str {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image)
}
