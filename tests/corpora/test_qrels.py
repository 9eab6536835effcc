import pytest

from cderetrieval.corpora.qrels import parse_grade, read_qrels
from cderetrieval.errors import InputError

EXPECTED = {"q1": {"d1": 1, "d2": -1}, "q2": {"d1": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t-1\nq2\td1\t2\n",
        "q1\td1\t1\nq1\td2\t-1\nq2\td1\t2\n",
        "q1\td1\t1.0\nq1\td2\t-1.0\nq2\td1\t2e0\n",
        "q1 0 d1 1\nq1 0 d2 -1\nq2 0 d1 2\n",
        "q1\t0\td1\t1\nq1\tQ0\td2\t-1\nq2\t0\td1\t2",
        "query_id\titeration\tdoc_id\trelevance\nq1\t0\td1\t1\nq1\t0\td2\t-1\nq2\t0\td1\t2\n",
        "corpus-id\tquery-id\tscore\nd1\tq1\t1\nd2\tq1\t-1\nd1\tq2\t2\n",
        '"query-id"\t"corpus-id"\t"score"\r\n"q1"\t"d1"\t"1"\r\n"q1"\td2\t-1\r\nq2\td1\t2\r\n',
        "\ufeffquery-id\tcorpus-id\tscore\n\nq1\td1\t1\nq1\td2\t-1\n  \nq2\td1\t2\nq2\td1\t2\n",
    ],
    ids=[
        "header",
        "headerless",
        "floats",
        "trec",
        "trec-tabs",
        "trec-header",
        "column-order",
        "quotes",
        "bom-blanks-repeats",
    ],
)
def test_every_layout_reads_the_same(tmp_path, text):
    path = tmp_path / "test.tsv"
    path.write_bytes(text.encode())
    assert read_qrels(path) == EXPECTED


def test_commas_in_quotes(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text('query-id,corpus-id,score\n"q,1","d ""1""",1\n')
    assert read_qrels(path) == {"q,1": {'d "1"': 1}}


def test_a_stray_quote_swallows_nothing(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text('"q1\td1\t1\nq2\t5" disk\t1\n')
    assert read_qrels(path) == {'"q1': {"d1": 1}, "q2": {'5" disk': 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\t1\nq1\td2\t0.5\n", r"line 2: grade '0.5' is not a whole number"),
        ("q1\td1\tnan\n", r"line 1: grade 'nan'"),
        ("q1\td1\tgood\n", r"line 1: grade 'good'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", r"line 2: 2 columns, the first line has 3"),
        ("q1\td1\t1\nq1\t0\td2\t1\n", r"line 2: 4 columns, the first line has 3"),
        ("q1\td1\n", r"line 1: 2 columns"),
        ("query-id\tcorpus-id\tscore\tScore\nq1\td1\t1\t0\n", r"line 1: 2 columns are named 'score'"),
        ("q1\td1\t1\nq1\t\t1\n", r"line 2: an id is empty"),
        ("q1\td1\t1\nq1\td1\t2\n", r"line 2: 'q1', 'd1' was judged 1 above"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "test.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"test.tsv, {message}"):
        read_qrels(path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_bytes(b"q1\td1\t1\nq\xff\td1\t1\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        read_qrels(path)


def test_whole_grades_only():
    assert [parse_grade(value, "here") for value in (1, 2.0, "3.0", "-1")] == [1, 2, 3, -1]
    for value in (0.5, None, "", float("inf")):
        with pytest.raises(InputError, match="here"):
            parse_grade(value, "here")
