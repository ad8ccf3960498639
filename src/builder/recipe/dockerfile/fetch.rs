//! Refuses ADD of what is elsewhere: the engine fetches it, in the network of its own machine, and so would hand out what
//! listens there on loopback, the API of `faas` included. (pure)

use super::{RecipeError, split::instructions};

/// What no name of a file of the source needs: it may be a URL, become one, or name a host.
const DOUBTFUL: [char; 4] = [':', '@', '$', '\\'];

/// Stripped by engines.
const QUOTES: [char; 4] = ['"', '\'', '[', ','];

pub(super) fn check(text: &str) -> Result<(), RecipeError> {
    for instruction in instructions(text) {
        let words = instruction.words_of("ADD");
        let sources = words.iter().filter(|word| !word.starts_with("--"));
        if let Some(source) = sources.copied().find(|source| is_elsewhere(source)) {
            let message = format!(
                "ADD {source} may fetch it in the network of the engine: write COPY for what is a file of the source, and \
                 fetch everything else in a RUN"
            );
            return Err(RecipeError::Dockerfile {
                line: instruction.line,
                message,
            });
        }
    }
    Ok(())
}

fn is_elsewhere(word: &str) -> bool {
    let name = word.replace(QUOTES, "").to_ascii_lowercase();
    // Engines know one site by name.
    name.contains(DOUBTFUL) || name.starts_with("github.com/")
}
