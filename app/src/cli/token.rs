//! `mos token`: makes a token for the API over TCP. Needs no daemon; nothing is kept but what the caller writes down.

use clap::Args;
use serde::Serialize;

use super::print;
use super::{Failure, Outcome, Report};
use crate::access::{Role, TokenHash, fresh_token};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// What it is called in the configuration, in notes and errors
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What whoever has it may do: viewer, operator or admin
    #[arg(long, default_value = "viewer")]
    role: Role,
    #[command(flatten)]
    report: Report,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    token: &'a str,
    name: &'a str,
    role: Role,
    hash: String,
}

pub(super) fn execute(args: &TokenArgs) -> Outcome {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if !(1..=32).contains(&args.name.len()) || !args.name.bytes().all(plain) {
        return Err(Failure::Usage("a token's name is 1 to 32 of a-z, 0-9, _ and -".to_owned()));
    }
    let token = fresh_token().map_err(|e| Failure::Failed(e.to_owned()))?;
    let hash = TokenHash::of(&token).to_string();
    if args.report.json {
        return print::json(&Made { token: &token, name: &args.name, role: args.role, hash });
    }
    print::line("# For the client, as MOS_TOKEN; it is not shown again:")?;
    print::line(&format!("# {token}"))?;
    print::line("# For the recorder's configuration; taken out again, the token is revoked within two seconds:")?;
    print::line(&format!("[[token]]\nname = \"{}\"\nrole = \"{}\"\nhash = \"{hash}\"", args.name, args.role))
}
