//! What a command may do, applied between fork and exec of its launcher, which has one thread.

use super::{
    cgroup::Cgroup,
    plan::{Paths, Plan},
};
use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities};
use std::{fs, io, io::Write, os::unix::process::CommandExt, path::Path, process::Command};

/// The newest rights that were tried. An older kernel enforces those of them that it knows.
const KNOWN: ABI = ABI::V6;

/// Makes `command` begin confined: in a process group of its own, without a way to more privileges, within its limits,
/// and with only the files of the plan and of `temp`. It ends when its launcher, this process, ends.
///
/// # Errors
/// When the kernel has Landlock and refuses the rules, or the command's cgroup cannot be entered.
pub(super) fn confine(
    command: &mut Command,
    plan: &Plan,
    temp: Option<&Path>,
    cgroup: Option<&Cgroup>,
) -> io::Result<()> {
    let mut rules = plan.paths.as_ref().map(|paths| rules(paths, temp)).transpose().map_err(io::Error::other)?;
    let entrance = cgroup.map(Cgroup::entrance).transpose()?;
    let (limits, is_confined) = (limits(plan), plan.paths.is_some());
    let launcher = rustix::process::getpid();
    if let Some(user) = plan.user {
        command.uid(user.uid).gid(user.gid);
    }
    let prepare = move || {
        rustix::process::setpgid(None, None)?;
        // After the user was changed: that resets it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(launcher) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        if let Some(mut entrance) = entrance.as_ref() {
            entrance.write_all(b"0")?;
        }
        rustix::thread::set_no_new_privs(true)?;
        for (resource, limit) in limits.iter().flatten() {
            set_limit(*resource, *limit)?;
        }
        if is_confined {
            drop_capabilities()?;
        }
        if let Some(rules) = rules.take() {
            rules.restrict_self().map_err(io::Error::other)?;
        }
        Ok(())
    };
    // SAFETY: the launcher has one thread, so no lock is held by another one at the fork, and memory may be allocated.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(prepare);
    }
    Ok(())
}

/// Root keeps its files and nothing else: with just `CAP_PERFMON` it could read the environment of every process, by
/// any rule of Landlock. What it drops here no program gives back, as the bounding set is empty.
fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // Refused to those who have no capability to lose; and unknown to older kernels.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Never above what the launcher itself may have.
fn set_limit(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = rustix::process::getrlimit(resource).maximum.map_or(limit, |most| most.min(limit));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

fn limits(plan: &Plan) -> [Option<(Resource, u64)>; 6] {
    [
        Some((Resource::Core, 0)),
        Some((Resource::Nofile, plan.open_files_max)),
        Some((Resource::Fsize, plan.file_max_bytes)),
        Some((Resource::Nproc, plan.user_processes_max)),
        plan.memory_max_bytes.map(|bytes| (Resource::As, bytes)),
        plan.cpu_max_seconds.map(|seconds| (Resource::Cpu, seconds)),
    ]
}

/// Paths that do not exist are left out.
fn rules(paths: &Paths, temp: Option<&Path>) -> Result<RulesetCreated, RulesetError> {
    let write = paths.write.iter().map(Path::new).chain(temp);
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(&paths.read, AccessFs::from_read(KNOWN)))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(KNOWN)))
}

/// Leaves this process, and what it starts, without a network: not even loopback.
///
/// # Errors
/// Of the kernel: neither is this user privileged, nor may it make namespaces.
pub(super) fn leave_network() -> io::Result<()> {
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // The same numbers inside, so that files have the owners that they had.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))
}

/// Gives this process, and what it starts, System V shared memory, semaphores and message queues of its own, which end
/// with the last of them: those of its user outlive every process, and no limit counts them. Not at the price of a user
/// namespace, in which files of others have an unknown owner and ssh and git refuse them: it works for root, and for
/// a command without a network, which is in such a namespace already.
///
/// # Errors
/// Of the kernel: this user is not privileged here.
pub(super) fn leave_ipc() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWIPC)?)
}

/// How much of the file rules this kernel enforces. To be called in a process that ends afterwards: it is confined.
pub(super) fn enforced() -> &'static str {
    match rules(&Paths::default(), None).and_then(RulesetCreated::restrict_self).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => "all",
        Ok(RulesetStatus::PartiallyEnforced) => "some",
        Ok(RulesetStatus::NotEnforced) | Err(_) => "none",
    }
}

/// Makes this process unreadable for the others of its user: no memory, environment or descriptors by way of `/proc`,
/// no debugger, no core file. Root is not kept from it by this, only by file rules.
pub(super) fn hide() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Signals the whole group that the command leads.
pub(super) fn signal_group(leader: Pid, signal: Signal) {
    // ESRCH: no process is left in it.
    let _ = rustix::process::kill_process_group(leader, signal);
}
