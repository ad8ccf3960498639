//! Reads what the classic builder says. It speaks in lines for people: `Step 2/5 : RUN make`, ` ---> 0123456789ab`.

use bollard::models::BuildInfo;

use super::report::{Report, shown};

/// Lines that say nothing about the user's build.
const NOISE: [&str; 5] = [
    " ---> Running in ",
    "Removing intermediate container ",
    " ---> Removed intermediate container ",
    "Successfully built ",
    "Successfully tagged ",
];

/// Begins the steps that are ours: nobody asked for them, and what they say is not for all.
const OURS: &str = "LABEL faas.dev/";

/// Most images of steps that are told. A program can print lines that look like them without end.
const IMAGES: usize = 500;

#[derive(Default)]
pub(super) struct Reader {
    /// Whether the step's image was there before: the base of a FROM, or a cached layer.
    known: bool,
    /// Whether the step is ours.
    ours: bool,
    /// How many images of steps were told.
    images: usize,
}

impl Reader {
    /// Takes a record, and tells `made` of a step's image; false when it is of unknown shape.
    pub(super) fn read(
        &mut self,
        info: &BuildInfo,
        report: &mut Report,
        made: &mut impl FnMut(&str),
    ) -> bool {
        match (&info.stream, &info.status) {
            (Some(text), _) => self.line(text, report, made),
            // The progress of pulling a base image.
            (None, Some(status)) if info.progress_detail.is_none() => {
                let id = info.id.as_deref().unwrap_or_default();
                report.output(format!("{status} {id}\n").as_bytes());
            }
            (None, Some(_)) => {}
            (None, None) => return false,
        }
        true
    }

    fn line(&mut self, text: &str, report: &mut Report, made: &mut impl FnMut(&str)) {
        if let Some(step) = step(text) {
            self.known = step.starts_with("FROM ");
            self.ours = step.starts_with(OURS);
            if !self.ours {
                report.step(&step);
            }
        } else if text == " ---> Using cache\n" {
            self.known = true;
            if !self.ours {
                report.cached();
            }
        } else if let Some(id) = image_id(text) {
            if !self.known && self.images < IMAGES {
                self.images += 1;
                made(id);
            }
        } else if !NOISE.iter().any(|noise| text.starts_with(noise)) && text != "\n" {
            report.output(text.as_bytes());
        }
    }
}

/// `Step 2/5 : RUN make` → `RUN make`.
fn step(text: &str) -> Option<String> {
    let (number, step) = text.strip_prefix("Step ")?.split_once(" : ")?;
    let counts = number.bytes().all(|b| b.is_ascii_digit() || b == b'/');
    counts.then(|| shown(step))
}

/// ` ---> 0123456789ab` → `0123456789ab`.
fn image_id(text: &str) -> Option<&str> {
    let id = text.strip_prefix(" ---> ")?.strip_suffix('\n')?;
    (id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}
