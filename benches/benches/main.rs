//! `cargo bench -p benches`: what the inner rooms cost, in time, beside what one would take instead of them.
//!
//! One file for each room. `cargo bench -p benches -- route` runs those whose name holds a word. Wall time on a busy
//! machine says little; what has to hold is counted in instructions (`cargo bench-instructions`), this is for
//! comparing things with each other. All of it is one program, because linking is the slow part of building it.

mod mailbox;
mod memory;
mod primitives;
mod route;
mod timer;
mod turn;
mod wire;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Two seconds each: enough to tell things apart, and the whole list stays below five minutes.
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    wire::heads_are_read(&mut criterion);
    wire::bodies_are_decoded(&mut criterion);
    wire::heads_are_written(&mut criterion);
    route::fixed_paths_are_found_and_called(&mut criterion);
    route::paths_with_parameters_are_found_and_called(&mut criterion);
    route::services_find_their_routes(&mut criterion);
    turn::a_turn_with_events(&mut criterion);
    timer::a_timer_is_set_and_cancelled(&mut criterion);
    timer::timers_expire(&mut criterion);
    memory::a_value_comes_and_goes(&mut criterion);
    memory::a_value_is_found(&mut criterion);
    memory::a_block_is_taken_and_given_back(&mut criterion);
    mailbox::letters_are_sent_and_taken(&mut criterion);
    primitives::one_thread(&mut criterion);
    primitives::two_threads(&mut criterion);
    criterion.final_summary();
}
