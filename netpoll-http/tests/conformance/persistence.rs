//! Whether the connection stays, several requests on it, and upgrades.

crate::conforms! {
    persistence:
    connection_close_is_honoured_wherever_it_stands
    what_only_looks_like_close_is_not
    http_1_0_closes_unless_keep_alive_is_asked_for
    pipelined_requests_are_answered_in_order
    behind_an_error_nothing_is_served
    an_upgrade_that_nobody_accepts_is_ignored
    an_expectation_other_than_100_continue_is_417
    expectations_are_a_list
    an_expectation_in_http_1_0_is_ignored
    a_body_that_came_along_needs_no_100
    head_is_answered_without_a_body
}
