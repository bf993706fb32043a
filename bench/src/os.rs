#![expect(unsafe_code, reason = "getrusage(2), mmap(2) and RDTSC have no safe wrapper: each gets one here")]
//! What needs `unsafe`: what a thread has used, a file as memory, and the time stamp counter.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use memmap2::Mmap;
use tierstream_storage::{Error, Result};

/// What a thread has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time in user mode.
    pub(crate) user: Duration,
    /// CPU time in the kernel.
    pub(crate) system: Duration,
    /// Context switches, voluntary or not.
    pub(crate) switches: u64,
    /// Page faults that had to read from a device.
    pub(crate) major_faults: u64,
    /// Page faults that had not.
    pub(crate) minor_faults: u64,
}

impl Usage {
    /// Of the calling thread alone: kernel workers that io_uring hands buffered I/O to are not in it.
    pub(crate) fn of_thread() -> Self {
        Self::of(libc::RUSAGE_THREAD)
    }

    /// Of all threads of this process, kernel workers of its rings among them.
    pub(crate) fn of_process() -> Self {
        Self::of(libc::RUSAGE_SELF)
    }

    fn of(who: libc::c_int) -> Self {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage(2) writes one `rusage` to the pointer, which has room for it.
        let failed = unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
        assert_eq!(failed, 0, "getrusage(2) takes RUSAGE_SELF, and RUSAGE_THREAD since Linux 2.6.26");
        // SAFETY: all fields are integers, zeroed above, for which every bit pattern is valid.
        let usage = unsafe { usage.assume_init() };
        let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
        let time = |time: libc::timeval| {
            Duration::from_secs(count(time.tv_sec)) + Duration::from_micros(count(time.tv_usec))
        };
        Self {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            switches: count(usage.ru_nvcsw) + count(usage.ru_nivcsw),
            major_faults: count(usage.ru_majflt),
            minor_faults: count(usage.ru_minflt),
        }
    }

    /// What two threads used together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
            switches: self.switches + other.switches,
            major_faults: self.major_faults + other.major_faults,
            minor_faults: self.minor_faults + other.minor_faults,
        }
    }

    /// What was used between `earlier` and this.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            switches: self.switches - earlier.switches,
            major_faults: self.major_faults - earlier.major_faults,
            minor_faults: self.minor_faults - earlier.minor_faults,
        }
    }
}

/// The first bytes of a file as memory, to copy from.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the first `bytes` bytes of `file` for reading.
    ///
    /// # Errors
    /// As mmap(2).
    pub(crate) fn new(file: &impl AsFd, path: &Path, bytes: usize) -> Result<Self> {
        // SAFETY: the bytes must not change while they are borrowed. Jobs that map only read, `io::run` asks its caller
        // to keep others off the file, and the only borrow is that of one copy (`copy_to`): the mapping does not leave
        // this type. Who breaks that promise gets mixed bytes in a buffer that nobody interprets, or SIGBUS where the
        // file was cut short.
        let map = unsafe { memmap2::MmapOptions::new().len(bytes).map(file.as_fd().as_raw_fd()) };
        map.map(Self).map_err(|error| Error::io("map", path, error))
    }

    /// Tells the kernel in which order it will be read.
    pub(crate) fn announce(&self, random: bool) {
        let advice = if random { memmap2::Advice::Random } else { memmap2::Advice::Sequential };
        // Advice that is not taken costs time only.
        let _refused = self.0.advise(advice);
    }

    /// Copies `to.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// When they are not within the mapping.
    pub(crate) fn copy_to(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0[offset..offset + to.len()]);
    }
}

#[inline]
/// The time stamp counter, which ticks at a rate of its own however fast the core runs; none but on x86-64.
pub(crate) fn time_stamp_counter() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC is part of x86-64; where a program may not use it, the process ends, which Linux does on
        // demand alone (prctl(2), PR_SET_TSC).
        Some(unsafe { std::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Binds the calling thread to `cores` (all when there are none) and gives it `nice`.
///
/// # Errors
/// `Denied` or `Misuse` as sched_setaffinity(2) and setpriority(2) say.
pub(crate) fn place_thread(cores: &[usize], nice: Option<i32>) -> Result<()> {
    let failed = |what: &'static str, error: std::io::Error| {
        Error::io(what, Path::new("thread"), error)
            .hint("see cpus_allowed and nice; a lower nice needs CAP_SYS_NICE")
    };
    if !cores.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        rustix::thread::sched_setaffinity(None, &set)
            .map_err(|error| failed("bind to cores", error.into()))?;
    }
    if let Some(nice) = nice {
        // Linux: the niceness of the calling thread alone.
        rustix::process::setpriority_process(None, nice).map_err(|error| failed("set nice", error.into()))?;
    }
    Ok(())
}
