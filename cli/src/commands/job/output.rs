//! `agentforge job output`: a job's result as the tool returned it, regardless of its size.

use super::one::full_id;
use crate::context::Context;
use agentforge_client::is_away;
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Failure, Result};
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// Whose result.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  agentforge job output 0198c5a2-7d1e-7c3a-9f00-0123456789ab | jq .
  agentforge job output 0198c5a2-7d1e-7c3a-9f00-0123456789ab --to result.json")]
pub struct OutputArgs {
    /// The job's id
    id: String,
    /// Write it to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Times that an output is asked for again before its first byte came.
const TRIES: u32 = 5;

pub(super) async fn run(args: OutputArgs, context: &Context) -> Result {
    let id = full_id(&args.id, context).await?;
    let Some(path) = args.to else { return copy(&id, context, &mut stdout()).await };
    let unwritable = |e: io::Error| Failure::new(format!("{} cannot be written: {e}", path.display()));
    // Written to another file and then renamed: an incomplete result never looks like a complete one.
    let mut partial = path.clone().into_os_string();
    partial.push(".partial");
    let mut file = std::fs::File::create(&partial).map_err(unwritable)?;
    copy(&id, context, &mut file).await?;
    file.sync_all().map_err(unwritable)?;
    std::fs::rename(&partial, &path).map_err(unwritable)?;
    context.out.note(format!("written to {}", path.display()));
    Ok(())
}

/// Where results go that are asked for without a file.
pub(super) fn stdout() -> impl Write {
    io::stdout().lock()
}

/// Copies the result, and a line break after it.
pub(super) async fn copy(id: &str, context: &Context, to: &mut impl Write) -> Result {
    let (mut written, mut tries) = (0_usize, 0);
    let broken = |e: &tonic::Status| context.client.failure("reading the output", e);
    loop {
        tries += 1;
        let request = tonic::Request::new(v1::GetJobOutputRequest { id: id.to_owned() });
        let answer = context.client.jobs().get_job_output(request).await;
        let mut stream = match answer {
            Ok(answer) => answer.into_inner(),
            Err(e) if is_away(&e) && tries < TRIES => {
                tokio::time::sleep(std::time::Duration::from_millis(200) * tries).await;
                continue;
            }
            Err(e) => return Err(broken(&e)),
        };
        // What was written cannot be taken back, so the second try skips it: an output never changes.
        let mut skip = written;
        loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    let begin = skip.min(chunk.data.len());
                    skip -= begin;
                    to.write_all(&chunk.data[begin..])?;
                    written += chunk.data.len() - begin;
                }
                Ok(None) => {
                    to.write_all(b"\n")?;
                    return Ok(to.flush()?);
                }
                Err(e) if is_away(&e) && tries < TRIES => {
                    tokio::time::sleep(std::time::Duration::from_millis(200) * tries).await;
                    break;
                }
                Err(e) => return Err(broken(&e)),
            }
        }
    }
}
