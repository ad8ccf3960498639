//! What an engine is told about a build.

use std::collections::HashMap;

use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder, BuilderVersion};

use super::{super::BuildJob, BUILT, DockerBuilder, Flavour, IMAGE_LABEL, OWNER_LABEL};

/// What a step of a classic build may use; BuildKit knows no such limits.
const MEMORY_BYTES: i32 = i32::MAX;
const CPU_PERIOD_MICROS: i32 = 100_000;
const CPU_QUOTA_MICROS: i32 = 2 * CPU_PERIOD_MICROS;

pub(super) fn build(builder: &DockerBuilder, job: &BuildJob) -> BuildImageOptions {
    let mut labels = HashMap::from([
        (OWNER_LABEL, builder.owner.as_str()),
        (IMAGE_LABEL, job.image.as_str()),
    ]);
    if builder.flavour == Flavour::Classic {
        labels.insert(&builder.step_label, BUILT);
    }
    let site = &builder.environment.variables;
    // A Function's own argument of the same name counts more than the site's.
    let arguments: HashMap<&str, &str> = site
        .iter()
        .chain(&job.recipe.args)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let options = BuildImageOptionsBuilder::new()
        .t(&job.image)
        .dockerfile("Dockerfile")
        .labels(&labels)
        .buildargs(&arguments)
        .rm(true)
        .forcerm(true);
    match builder.flavour {
        Flavour::Classic => options
            .version(BuilderVersion::BuilderV1)
            .memory(MEMORY_BYTES)
            .memswap(MEMORY_BYTES)
            .cpuperiod(CPU_PERIOD_MICROS)
            .cpuquota(CPU_QUOTA_MICROS),
        Flavour::BuildKit => options
            .version(BuilderVersion::BuilderBuildKit)
            .session(&uuid::Uuid::new_v4().simple().to_string()),
    }
    .build()
}
