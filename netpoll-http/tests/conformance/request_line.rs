//! The start of a connection and the request line.

crate::conforms! {
    request_line:
    up_to_four_empty_lines_before_a_request_line_are_skipped
    a_malformed_request_line_is_refused
    a_version_that_is_not_http_digit_dot_digit_is_refused
    another_major_version_is_refused_with_505
    a_higher_minor_version_is_served_as_1_1
    a_target_with_a_byte_that_no_uri_has_is_refused
    a_target_may_have_8192_bytes_and_not_one_more
    the_authority_of_an_absolute_target_replaces_the_host
    an_absolute_target_of_another_scheme_or_without_a_host_is_refused
    an_asterisk_goes_with_options_only
    connect_is_refused
    an_unknown_method_is_501_and_a_known_one_without_a_route_405
    the_http2_preface_is_refused_with_505
    a_tls_handshake_is_cut_without_an_answer
    routing_sees_the_path_as_it_was_sent
}
