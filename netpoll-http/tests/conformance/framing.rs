//! Where a body ends.

crate::conforms! {
    framing:
    content_length_beside_transfer_encoding_is_refused
    a_content_length_is_decimal_digits
    leading_zeros_of_a_content_length_are_just_zeros
    a_content_length_over_the_limit_is_refused_with_413
    a_second_content_length_is_refused_even_if_it_is_equal
    transfer_encoding_in_http_1_0_is_refused
    the_one_transfer_encoding_is_chunked
    another_transfer_coding_before_chunked_is_501
    a_transfer_encoding_that_is_not_exactly_chunked_is_refused
    without_a_length_there_is_no_body
    a_body_is_framed_whatever_the_method
    body_bytes_are_never_taken_for_a_request
    an_unwanted_body_is_skipped_up_to_64_kib
}
