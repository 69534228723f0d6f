//! Quotas, rates, lifetimes, and the address for metrics.

use crate::coturn::options::Key;
use crate::coturn::values;
use crate::coturn::work::Work;

/// Bits of a byte, for both directions: coturn limits each direction by itself, here both count together.
const BITS_BOTH_WAYS: u64 = 16;
/// Bounds of `limits.lifetime_max_seconds`.
const LIFETIME_MAX: i64 = 86_400;
const METRICS_PORT: u16 = 9641;

/// Translates limits.
pub(super) fn translate(work: &mut Work) {
    quota(work, Key::UserQuota, "allocations_per_user");
    let total = quota(work, Key::TotalQuota, "allocations_total");
    rates(work, total);
    lifetime(work);
    metrics(work);
}

/// Reads a number of allocations.
fn quota(work: &mut Work, key: Key, limit: &'static str) -> Option<u32> {
    let index = work.last(key)?;
    let leading = values::leading(work.value(index));
    let number = u32::try_from(leading.number.max(0)).ok();
    let meaning = match number {
        None => "no limit, because no relay has that many ports".to_owned(),
        Some(0) => "no limit".to_owned(),
        Some(number) => format!("{limit} = {number}"),
    };
    let number = number.unwrap_or(0);
    if leading.whole && leading.number >= 0 {
        work.kept(index, meaning);
    } else if leading.any && leading.number >= 0 {
        work.kept(index, format!("{meaning}; the number ends at the first other character"));
    } else {
        let reason = format!("not a number of allocations: coturn reads 0 or less, which means {meaning}");
        work.differs(index, reason, format!("write {limit} with a number in [limits]"));
    }
    limit_is(work, limit, number, &[key]);
    Some(number)
}

fn limit_is(work: &mut Work, limit: &'static str, number: u32, keys: &[Key]) {
    work.meaning.limits.retain(|(other, _)| *other != limit);
    work.meaning.limits.push((limit, number));
    work.from(limit, keys);
}

/// Reads the rate of one allocation, in bytes a second and direction, and the sum that coturn gives out.
fn rates(work: &mut Work, total: Option<u32>) {
    let amount = |work: &Work, index: usize| {
        let leading = values::leading(work.value(index));
        // To coturn, a negative number is a huge one.
        let number = if leading.number < 0 { 0 } else { leading.number.unsigned_abs() };
        (number, leading.any)
    };
    let max = work.last(Key::MaxBps);
    let mut each = 0;
    if let Some(index) = max {
        let (bytes, any) = amount(work, index);
        each = bytes;
        if bytes == 0 {
            let reason = if any {
                "no limit: [limits] kbit_per_allocation = 0"
            } else {
                "not a number, so there is no limit"
            };
            work.kept(index, reason);
            limit_is(work, "kbit_per_allocation", 0, &[Key::MaxBps]);
        } else {
            let kbit = u32::try_from(bytes.saturating_mul(BITS_BOTH_WAYS).div_ceil(1000)).unwrap_or(u32::MAX);
            let reason = format!(
                "{bytes} bytes a second in each direction are {kbit} kbit/s in both directions together: kbit_per_allocation = {kbit}"
            );
            work.kept(index, reason);
            limit_is(work, "kbit_per_allocation", kbit, &[Key::MaxBps]);
        }
    }
    let Some(index) = work.last(Key::BpsCapacity) else { return };
    let (capacity, _) = amount(work, index);
    if capacity == 0 {
        return work.kept(index, "no limit");
    }
    if each == 0 {
        let message = "bps-capacity without max-bps: coturn does not start";
        return work.refuse_whole(index, message, "add max-bps, or remove bps-capacity");
    }
    // coturn reserves max-bps for each allocation, and refuses the next one when nothing is left.
    let allocations = u32::try_from(capacity.div_ceil(each)).unwrap_or(u32::MAX);
    let allocations = match total {
        Some(total) if total > 0 => allocations.min(total),
        _ => allocations,
    };
    work.differs(
        index,
        format!("coturn reserves max-bps of it for each allocation, so it is enough for allocations_total = {allocations}"),
        "nothing; kbit_per_host limits the traffic itself",
    );
    limit_is(work, "allocations_total", allocations, &[Key::TotalQuota, Key::BpsCapacity]);
}

fn lifetime(work: &mut Work) {
    let Some(index) = work.last(Key::MaxAllocateLifetime) else { return };
    if work.value(index).is_empty() {
        return work.kept(index, "3600 seconds, the default");
    }
    let number = values::leading(work.value(index)).number;
    let seconds = match number {
        0 => {
            let remedy = "write lifetime_max_seconds in [limits]";
            let reason = "with 0 seconds no allocation would last; here it is the default of 3600 seconds";
            return work.differs(index, reason, remedy);
        }
        1..=LIFETIME_MAX => {
            work.kept(index, format!("lifetime_max_seconds = {number}"));
            number
        }
        _ => {
            work.differs(
                index,
                format!("the longest possible value is {LIFETIME_MAX}"),
                "nothing: clients refresh",
            );
            LIFETIME_MAX
        }
    };
    limit_is(
        work,
        "lifetime_max_seconds",
        u32::try_from(seconds).unwrap_or(3600),
        &[Key::MaxAllocateLifetime],
    );
}

/// Metrics: coturn serves them on all addresses, Hallpass on loopback. There `hallpass sessions` and `hallpass top` ask, too, so the
/// address is open without `prometheus` as well.
fn metrics(work: &mut Work) {
    let is_taken =
        |work: &Work, port: u16| work.meaning.listen.iter().any(|listen| listen.address.port() == port);
    let port_index = work.last(Key::PrometheusPort);
    let Some(index) = work.last(Key::Prometheus) else {
        if let Some(index) = port_index {
            work.idle(index, "the metrics are at the address of [admin]");
        }
        work.meaning.admin = Some(METRICS_PORT).filter(|port| !is_taken(work, *port));
        return;
    };
    let number = port_index.map(|index| values::leading(work.value(index)).number);
    let port =
        number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0).unwrap_or(METRICS_PORT);
    let port = if is_taken(work, port) { METRICS_PORT } else { port };
    work.differs(
        index,
        format!("[admin] on 127.0.0.1:{port}; coturn serves its metrics on all addresses, and Debian's build has none"),
        "for a Prometheus on another machine see [admin] in the example configuration: it needs a token and TLS; the names of \
         metrics differ",
    );
    if let Some(index) = port_index {
        work.differs(
            index,
            format!("[admin] on 127.0.0.1:{port}"),
            "nothing, if Prometheus runs on this machine",
        );
    }
    work.meaning.admin = Some(port);
    work.from("admin", &[Key::Prometheus, Key::PrometheusPort]);
}
