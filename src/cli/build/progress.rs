//! How a deployment goes, for the person who waits: the stages on one line, or the build's own log.

use std::{convert::Infallible, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::{
    client::{Client, ClientError, Log},
    error::CliError,
    list::ready,
    output,
};
use crate::{
    builder::archive::Context,
    function::{Function, FunctionKey},
    text::plain,
};

/// Between two looks at the Function.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Follows one deployment.
pub struct Progress<'a> {
    client: &'a Client,
    key: &'a FunctionKey,
    /// `spec.source.archive` of what is being deployed.
    archive: String,
    verbose: bool,
    /// What was told last.
    told: String,
    /// When the build began whose log has been printed, or that is none of this deployment.
    seen: Option<Time>,
    log: Option<Log>,
}

impl<'a> Progress<'a> {
    /// Says that it begins. Fails when there is no server.
    pub async fn begin(
        client: &'a Client,
        key: &'a FunctionKey,
        context: &Context,
        verbose: bool,
    ) -> Result<Self, CliError> {
        let seen = match client.get(key).await {
            Ok(before) => began(&before),
            Err(ClientError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        output::say(&format!(
            "Building {key} ...{}",
            if verbose { "\n" } else { "" }
        ));
        let archive = format!("sha256:{}", context.digest());
        Ok(Self {
            client,
            key,
            archive,
            verbose,
            told: String::new(),
            seen,
            log: None,
        })
    }

    /// Tells what happens until the future is dropped; ends by itself only when that cannot be learnt.
    pub async fn follow(&mut self) -> Result<Infallible, CliError> {
        loop {
            if self.log.is_none() {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.look().await?;
            }
            self.copy_one().await?;
        }
    }

    /// Tells the rest, and how it ended.
    pub async fn end(mut self, how: &str) -> Result<(), CliError> {
        if !self.verbose {
            output::say(&format!(" {how}\n"));
            return Ok(());
        }
        if self.log.is_none() {
            self.look().await?;
        }
        while self.log.is_some() {
            self.copy_one().await?;
        }
        output::say(&format!("{} {how}\n", self.key));
        Ok(())
    }

    async fn look(&mut self) -> Result<(), CliError> {
        let function = match self.client.get(self.key).await {
            Ok(function) if function.spec.source.archive.as_ref() == Some(&self.archive) => {
                function
            }
            Ok(_) | Err(ClientError::Refused { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.verbose {
            self.open_log(&function).await?;
        } else {
            self.tell_stage(&function);
        }
        Ok(())
    }

    /// Begins to read the log of a build that has begun since the last look.
    async fn open_log(&mut self, function: &Function) -> Result<(), CliError> {
        let began = began(function);
        if began.is_some() && began != self.seen {
            self.seen = began;
            self.log = Some(self.client.build_log(self.key, true).await?);
        }
        Ok(())
    }

    fn tell_stage(&mut self, function: &Function) {
        let status = function.status.clone().unwrap_or_default();
        let (ready, reason, message) = ready(&status.conditions);
        if status.observed_generation != function.metadata.generation
            || ready == "True"
            || reason.is_empty()
        {
            return;
        }
        let stage = match ready.as_str() {
            "Unknown" => format!(" {} ...", reason.to_lowercase()),
            // It failed and is tried again, which may go on for long.
            _ => format!(
                "\n  {reason}: {}; trying again ...",
                plain(message.lines().next().unwrap_or_default())
            ),
        };
        if stage != self.told {
            output::say(&stage);
            self.told = stage;
        }
    }

    /// Prints the next piece of the log; without a log nothing.
    async fn copy_one(&mut self) -> Result<(), CliError> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        match log.next().await? {
            Some(piece) => output::say(&String::from_utf8_lossy(&piece)),
            None => self.log = None,
        }
        Ok(())
    }
}

fn began(function: &Function) -> Option<Time> {
    function
        .status
        .as_ref()?
        .last_build
        .as_ref()
        .map(|build| build.start_time.clone())
}
