//! `GET /metrics`: what is counted, in the text format of Prometheus (version 0.0.4).

use super::Deployers;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use faas::Route;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `GET /metrics`.
pub(super) async fn show(State(deployer): Deployers) -> Response {
    let mut routes = deployer.options.router.routes();
    routes.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    let media = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (media, text(&routes)).into_response()
}

fn text(routes: &[Arc<Route>]) -> String {
    let mut out = String::new();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    head(
        &mut out,
        "function_invocations_total",
        "counter",
        "Calls that found the function.",
    );
    for route in routes {
        let name = route.name();
        let count = load(&route.counters.invocations);
        line(
            &mut out,
            format_args!("function_invocations_total{{function=\"{name}\"}} {count}"),
        );
    }
    head(
        &mut out,
        "function_errors_total",
        "counter",
        "Calls without a reply, by whose fault it was.",
    );
    for route in routes {
        let name = route.name();
        for (fault, count) in [
            ("function", load(&route.counters.function_errors)),
            ("platform", load(&route.counters.platform_errors)),
        ] {
            let labels = format_args!("function=\"{name}\",fault=\"{fault}\"");
            line(
                &mut out,
                format_args!("function_errors_total{{{labels}}} {count}"),
            );
        }
    }
    head(
        &mut out,
        "function_waiting",
        "gauge",
        "Calls that wait for a handler.",
    );
    for route in routes {
        let (name, waiting) = (route.name(), route.waiting());
        line(
            &mut out,
            format_args!("function_waiting{{function=\"{name}\"}} {waiting}"),
        );
    }
    head(
        &mut out,
        "function_overhead_seconds",
        "histogram",
        "From the decoded call to its reply, without the handler's time.",
    );
    for route in routes {
        overhead(&mut out, route);
    }
    out
}

fn overhead(out: &mut String, route: &Route) {
    let name = route.name();
    let counted = route.counters.overhead.counted();
    for (end, count) in &counted.up_to {
        let labels = format_args!("function=\"{name}\",le=\"{}\"", end.as_secs_f64());
        line(
            out,
            format_args!("function_overhead_seconds_bucket{{{labels}}} {count}"),
        );
    }
    let (count, sum) = (counted.count, counted.sum.as_secs_f64());
    let labels = format_args!("function=\"{name}\",le=\"+Inf\"");
    line(
        out,
        format_args!("function_overhead_seconds_bucket{{{labels}}} {count}"),
    );
    line(
        out,
        format_args!("function_overhead_seconds_sum{{function=\"{name}\"}} {sum}"),
    );
    line(
        out,
        format_args!("function_overhead_seconds_count{{function=\"{name}\"}} {count}"),
    );
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _infallible = writeln!(out, "{text}");
}
