//! The chunked body.

crate::conforms! {
    chunked:
    a_chunk_size_is_one_to_sixteen_hexadecimal_digits
    a_chunk_size_over_the_limit_is_refused
    a_chunk_line_and_chunk_data_end_with_crlf
    chunk_extensions_are_checked_and_ignored
    a_malformed_chunk_extension_is_refused
    all_chunk_extensions_together_may_have_4_kib
    a_body_of_more_framing_than_data_is_refused
    trailers_are_checked_and_have_no_effect
    trailers_are_kept_apart_without_those_that_matter
    a_malformed_trailer_is_refused
    a_trailer_section_may_have_4_kib
    the_last_chunk_is_any_number_of_zeros
    an_error_in_an_unwanted_body_ends_the_connection
}
