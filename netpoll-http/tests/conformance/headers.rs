//! The header section.

crate::conforms! {
    headers:
    exactly_one_host_is_required_in_http_1_1
    a_host_is_a_name_or_address_with_an_optional_port
    an_empty_host_is_taken_where_there_is_none_to_name
    white_space_before_the_colon_is_refused
    white_space_before_the_first_header_is_refused
    a_folded_header_is_refused
    a_line_that_ends_with_lf_alone_is_refused
    a_cr_without_lf_is_refused
    a_header_name_is_a_token_with_a_colon_behind_it
    a_control_character_in_a_value_is_refused
    bytes_above_ascii_in_a_value_are_kept
    spaces_and_tabs_around_a_value_are_not_part_of_it
    a_head_may_have_100_lines_and_not_one_more
    a_head_may_have_16_kib_and_not_one_byte_more
    an_underscore_in_a_name_is_no_hyphen
    connection_cannot_name_framing_headers_away
}
