//! The outcome as one JSON object.

use serde_json::{Value, json};

use super::limit::Limit;
use super::outcome::{Outcome, reasons};
use super::step::{Culprit, Step, Verdict};
use crate::load::report::Quantiles;

/// Returns the outcome as JSON.
pub fn json(outcome: &Outcome) -> String {
    let setting = &outcome.setting;
    let mix: serde_json::Map<String, Value> =
        setting.mix.iter().map(|(name, share)| ((*name).to_owned(), json!(share))).collect();
    let all = json!({
        "scenario": "lesson",
        "server": setting.server,
        "mix": mix,
        "began": setting.began,
        "machine": setting.machine,
        "program": setting.program,
        "same_machine": setting.is_local,
        "own_users": setting.has_own_users,
        "server_counters": setting.has_counters,
        "lesson": {
            "pupils": setting.shape.class_size,
            "teachers": setting.shape.teachers,
            "cameras": setting.shape.cameras_per_lesson(),
            "allocations_per_participant": setting.shape.slots_per_seat(),
            "rejoin_seconds": setting.rejoin.map(|every| every.as_secs_f64()),
        },
        "bounds": {
            "loss_ratio": setting.bounds.loss,
            "latency_p99_us": setting.bounds.latency.as_secs_f64() * 1e6,
        },
        "answer": {
            "is_answered": outcome.is_answered(),
            "pupils": outcome.found.good,
            "broken_at": outcome.found.broken,
            "text": outcome.answer(),
            "notes": outcome.notes(),
        },
        "steps": outcome.steps.iter().map(|step| of_step(outcome, step)).collect::<Vec<_>>(),
        "seconds": outcome.moments.iter().map(|moment| json!({
            "allocations": moment.allocations,
            "sent": moment.packets.sent,
            "received": moment.packets.received,
            "payload_bytes": moment.packets.bytes,
            "latency_us": moment.packets.latency.map(|(median, p99)| json!({ "p50": median, "p99": p99 })),
            "server_cpu_cores": moment.server_cpu,
        })).collect::<Vec<_>>(),
    });
    format!("{all:#}")
}

fn of_step(outcome: &Outcome, step: &Step) -> Value {
    let failed: serde_json::Map<String, Value> =
        step.failed.iter().map(|(cause, count)| (cause.to_string(), json!(count))).collect();
    let (why, by) = match &step.verdict {
        Verdict::Good => (Value::Null, Value::Null),
        Verdict::Broken { breaks, by } => (json!(reasons(breaks, &outcome.setting.bounds)), culprit(by)),
    };
    json!({
        "pupils": step.pupils,
        "participants": step.participants,
        "allocations": step.allocations,
        "is_confirmation": step.is_confirmation,
        "is_good": step.is_good(),
        "why_not": why,
        "by": by,
        "began_seconds": step.began.as_secs_f64(),
        "seconds": step.elapsed.as_secs_f64(),
        "sent": step.sent,
        "received": step.received,
        "loss_ratio": step.loss(),
        "packets_per_second": step.packets_per_second(),
        "mbit_per_second": step.mbit(),
        "latency_us": quantiles(step.latency),
        "late_us": quantiles(step.lateness),
        "joins": { "done": step.joined, "failed": failed, "duration_us": quantiles(step.join_time) },
        "server": step.server.map(
            |server| json!({ "cpu_cores": server.cores, "waited_cores": server.waited, "rss": server.rss })
        ),
        "generator": { "busy": step.generator.busy, "dropped_packets": step.generator.dropped },
        "limits": step.limits.iter().map(limit).collect::<Vec<_>>(),
        "errors": step.errors,
    })
}

fn culprit(by: &Culprit) -> Value {
    match by {
        Culprit::Relay => json!({ "what": "relay" }),
        Culprit::Limits(limits) => {
            json!({ "what": "limit", "limits": limits.iter().map(limit).collect::<Vec<_>>() })
        }
        Culprit::Machine(reasons) => json!({ "what": "machine", "reasons": reasons }),
    }
}

fn limit(limit: &Limit) -> Value {
    let Limit { sign, count, meaning, setting } = limit;
    json!({ "sign": sign, "count": count, "meaning": meaning, "setting": setting })
}

fn quantiles(of: Option<Quantiles>) -> Value {
    of.map_or(
        Value::Null,
        |q| json!({ "p50": q.p50, "p90": q.p90, "p99": q.p99, "p999": q.p999, "max": q.max }),
    )
}
