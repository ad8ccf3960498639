//! `faas token`: making, showing and revoking the tokens of a server, in its state directory, or in the Secret that those of
//! a cluster share. A server that runs goes by the change at once, and by a Secret's after some seconds.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    age::duration,
    error::CliError,
    output::{self, Format},
    table::Table,
};
use crate::{
    access::{
        book, secret,
        token::{self, RANDOM_BYTES, Scope, Token},
        tokens::{TokenError, Tokens, Wish},
    },
    config,
};

/// What was typed after `faas token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token and print it; it is not shown again
    Create(CreateArgs),
    /// Show the tokens, which does not show their secrets
    List(ListArgs),
    /// End tokens at once
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Who will use it, for the list and the audit
    #[arg(required_unless_present = "replaces")]
    name: Option<String>,

    /// What it is for; may be given several times [default: what the replaced one is for]
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        value_enum,
        value_delimiter = ',',
        required_unless_present = "replaces"
    )]
    scopes: Vec<Scope>,

    /// How long it lives, at most 366d
    #[arg(long, value_name = "DURATION", value_parser = token::duration, default_value = "90d")]
    expires: SignedDuration,

    /// Name of the token whose successor it is
    #[arg(long, value_name = "NAME")]
    replaces: Option<String>,

    /// How long the replaced one lives on
    #[arg(long, value_name = "DURATION", value_parser = token::duration, default_value = "1h", requires = "replaces")]
    overlap: SignedDuration,

    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Their names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    tokens: Vec<String>,

    #[command(flatten)]
    state: StateArgs,
}

/// Where the tokens are.
#[derive(Debug, Args)]
struct StateArgs {
    /// The server's state directory [default: `$XDG_STATE_HOME/faas`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Secret that has the tokens of a cluster's servers, in the namespace of the kubeconfig's context, or of the pod
    #[arg(long, value_name = "NAME", conflicts_with = "state_dir")]
    secret: Option<String>,
}

impl StateArgs {
    fn dir(&self) -> Result<PathBuf, CliError> {
        Ok(book::dir(&config::state_dir(self.state_dir.clone())?)?)
    }

    async fn read(&self) -> Result<Tokens, CliError> {
        match &self.secret {
            Some(secret) => Ok(secret::read(secret).await?),
            None => Ok(book::read(&self.dir()?)?),
        }
    }

    async fn edit<T>(
        &self,
        change: impl Fn(&mut Tokens, &[u8; RANDOM_BYTES]) -> Result<T, TokenError>,
    ) -> Result<T, CliError> {
        match &self.secret {
            Some(secret) => Ok(secret::edit(secret, change).await?),
            None => Ok(book::edit(&self.dir()?, change)?),
        }
    }
}

/// Does what was typed.
pub async fn run(args: TokenArgs) -> Result<(), CliError> {
    match args.command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(&args).await,
        Command::Revoke(args) => revoke(&args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), CliError> {
    let now = Timestamp::now();
    let wish = Wish {
        name: args.name,
        scopes: (!args.scopes.is_empty()).then(|| args.scopes.into_iter().collect()),
        life: args.expires,
        replaces: args.replaces.map(|name| (name, args.overlap)),
    };
    let replaced = wish.replaces.clone();
    let created = args
        .state
        .edit(|tokens, random| tokens.create(wish.clone(), now, random));
    let (token, text) = created.await?;
    output::print(&format!("{text}\n"))?;
    output::say(&format!(
        "This is the token {:?}, for {}, until {}. It is shown this once: keep it where only its user can read it.\n",
        token.name,
        token.scopes,
        token
            .expires
            .round(jiff::Unit::Second)
            .unwrap_or(token.expires),
    ));
    if let Some((name, overlap)) = replaced {
        let left = duration(overlap.as_secs());
        output::say(&format!("What {name:?} was before ends in {left}.\n"));
    }
    Ok(())
}

async fn list(args: &ListArgs) -> Result<(), CliError> {
    let tokens = args.state.read().await?;
    let now = Timestamp::now();
    let text = match args.output {
        Some(format) => {
            let items: Vec<_> = tokens.0.iter().map(shown).collect();
            output::document(&json!({ "items": items }), format)
        }
        None => table(&tokens, now),
    };
    output::print(&text)
}

/// A token without its digest.
fn shown(token: &Token) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "created": token.created,
        "expires": token.expires,
    })
}

fn table(tokens: &Tokens, now: Timestamp) -> String {
    let mut table = Table::new(["NAME", "ID", "SCOPES", "AGE", "EXPIRES"]);
    for token in &tokens.0 {
        let expires = if token.expires > now {
            let left = token.expires.as_second() - now.as_second();
            format!("in {}", duration(left))
        } else {
            "expired".to_owned()
        };
        table.row([
            token.name.clone(),
            token.id.clone(),
            token.scopes.to_string(),
            duration((now.as_second() - token.created.as_second()).max(0)),
            expires,
        ]);
    }
    table.render("")
}

async fn revoke(args: &RevokeArgs) -> Result<(), CliError> {
    let revoked = args.state.edit(|tokens, _| {
        let each = args.tokens.iter().map(|which| tokens.revoke(which));
        each.collect::<Result<Vec<_>, _>>()
    });
    let revoked = revoked.await?;
    for token in revoked.iter().flatten() {
        output::say(&format!(
            "The token {:?} ({}) is revoked.\n",
            token.name, token.id
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::LIFE;

    #[test]
    fn the_default_life_is_the_one_that_is_told() {
        assert_eq!(token::duration("90d"), Ok(LIFE));
    }
}
