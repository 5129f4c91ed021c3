"""What is a request and what is not: one test per row of the protocol page."""

import check
from ota.install.report import report_payload
from ota.request import BadRequest, parse

GOOD = b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar.gz"},{"n":"s","v":3987}]'


def accepted(payload):
    request = parse(payload)
    return request and (request.file_id, request.kind, request.size)


def refused(payload, text, file_id=""):
    error = check.raises(BadRequest, text, parse, payload)
    check.equal(error.file_id, file_id)


def changed(old, new):
    if old not in GOOD:
        raise ValueError(old)
    return GOOD.replace(old, new)


def test_the_example_of_the_protocol_page():
    check.equal(accepted(GOOD), ("fa8884d2", ".tar.gz", 3987))


def test_an_empty_message_is_no_request():
    check.equal(parse(b""), None)


def test_applied_failed_and_cancelled_are_no_requests():
    for event in (b"1", b"2", b"3", b"-1", b'"1"'):
        check.equal(parse(changed(b'"v":0', b'"v":' + event)), None)


def test_own_reports_are_no_requests():
    check.equal(parse(report_payload(1, "fa8884d2").encode()), None)
    check.equal(parse(report_payload(2, "fa8884d2", "not enough space").encode()), None)


def test_fields_in_any_order_and_unknown_ones():
    payload = (
        b'[{"n":"x","v":1},{"n":"s","v":3987,"u":"B"},{"n":"t","vs":".tar"},{},'
        b'{"vs":"fa8884d2","n":"i"},{"v":0,"n":"e"}]'
    )
    check.equal(accepted(payload), ("fa8884d2", ".tar", 3987))


def test_numbers_as_text_and_whole_floats():
    payload = changed(b'"v":3987', b'"vs":"3987"').replace(b'"v":0', b'"v":"0"')
    check.equal(accepted(payload), ("fa8884d2", ".tar.gz", 3987))
    check.equal(accepted(changed(b"3987", b"3987.0")), ("fa8884d2", ".tar.gz", 3987))
    check.equal(
        accepted(changed(b'"vs":"fa8884d2"', b'"v":12345678')), ("12345678", ".tar.gz", 3987)
    )


def test_base_names():
    payload = (
        b'[{"bn":"s","v":3987},{"bn":"","n":"e","v":0},{"n":"i","vs":"a"},{"n":"t","vs":".tar"}]'
    )
    check.equal(accepted(payload), ("a", ".tar", 3987))
    payload = (
        b'[{"bn":"urn:x:","n":"e","v":0},{"n":"i","vs":"a"},{"n":"t","vs":".tar"},{"n":"s","v":1}]'
    )
    check.equal(accepted(payload), ("a", ".tar", 1))


def test_event_missing_or_wrong():
    refused(changed(b'{"n":"e","v":0},', b""), "e is missing", "fa8884d2")
    refused(changed(b'"v":0', b'"v":null'), "e is missing", "fa8884d2")
    refused(changed(b'"v":0', b'"v":[0]'), "e is missing", "fa8884d2")
    refused(changed(b'"v":0', b'"v":false'), "e is missing", "fa8884d2")


def test_file_id_missing_or_wrong():
    refused(changed(b'{"n":"i","vs":"fa8884d2"},', b""), "i is missing")
    for wrong in (b"null", b"[]", b"{}", b'""', b"true", b"1.5", b'"' + b"a" * 65 + b'"'):
        refused(changed(b'"fa8884d2"', wrong), "i is missing")


def test_file_id_that_would_leave_its_place_in_the_url():
    for wrong in (b"a&dk=x", b"a b", b"a/../b", b"a%20", b"a#", b"a?b", b"a\\n", b"\xc3\xa9"):
        refused(changed(b"fa8884d2", wrong), "i is missing")


def test_kind_missing_or_wrong():
    refused(changed(b'{"n":"t","vs":".tar.gz"},', b""), "t is missing", "fa8884d2")
    for wrong in (b'".zip"', b"1", b"null", b'"tar"', b"[]"):
        refused(changed(b'".tar.gz"', wrong), "t is missing", "fa8884d2")


def test_size_missing_or_wrong():
    refused(changed(b',{"n":"s","v":3987}', b""), "s is missing", "fa8884d2")
    for wrong in (b"0", b"-5", b"null", b'"many"', b"1.5", b"true", b"[1]", b'""'):
        refused(changed(b"3987", wrong), "s is missing", "fa8884d2")


def test_a_field_twice():
    refused(changed(b'{"n":"s"', b'{"n":"i","vs":"b"},{"n":"s"'), "i stands twice")


def test_not_json():
    for payload in (b"x", b"[", b"\xff\x00", b'[{"n":', b'[{"n":"e","v":0}'):
        refused(payload, "not JSON")
    refused(b"{" * 9, "not ")  # to releases before 1.26 it is a whole object


def test_what_could_exhaust_the_memory_is_not_even_parsed():
    for payload in (b"[" * 1500, b"[" * 40 + b"]" * 40 + b"{" * 40, b'[{"n":' * 65):
        refused(payload, "nested or long")


def test_json_but_no_pack():
    for payload in (b"{}", b"1", b'"x"', b"null", b"[1]", b'[{"n":"e","v":0},3]', b"[[]]"):
        refused(payload, "not a SenML pack")


def test_names_of_other_types_are_only_unknown():
    refused(b'[{"n":1},{"n":null,"bn":[]}]', "e is missing")


def test_reports_are_those_of_the_protocol_page():
    check.equal(report_payload(1, "fa8884d2"), '[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]')
    check.equal(
        report_payload(2, "fa8884d2", "not enough space"),
        '[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"not enough space"}]',
    )


def test_report_text_is_bounded_and_escaped():
    payload = report_payload(2, "a", 'say "hi"\n' + "x" * 500)
    check.equal(len(payload) < 250, True)
    check.equal('say \\"hi\\"\\n' in payload, True)


check.run(globals())
