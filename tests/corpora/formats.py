"""Small files of every format, made by hand."""

import io
import json
import zipfile

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
TYPES = """<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml"
 ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>
<Override PartName="/word/styles.xml"
 ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.styles+xml"/></Types>"""
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = """<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
{}</Relationships>"""
STYLES = f"""<?xml version="1.0"?><w:styles {W}>{{}}</w:styles>""".format(
    "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/></w:style>' for n in (1, 2)
    )
)


def docx(paragraphs, prolog="", extra="", relations="", parts=()):
    """A DOCX of (style, text) pairs."""
    styled = '<w:p><w:pPr><w:pStyle w:val="{}"/></w:pPr><w:r><w:t>{}</w:t></w:r></w:p>'
    body = "".join(styled.format(*one) for one in paragraphs) + extra
    named = f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="word/document.xml"/>'
    style = f'<Relationship Id="r2" Type="{OFFICE}/styles" Target="styles.xml"/>'
    files = {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": RELATIONS.format(named),
        "word/_rels/document.xml.rels": RELATIONS.format(style + relations),
        "word/styles.xml": STYLES,
        "word/document.xml": f'<?xml version="1.0"?>{prolog}<w:document {W}><w:body>{body}</w:body></w:document>',
        **dict(parts),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def pdf(pages, outline=(), encrypt=""):
    """A PDF of pages of lines; the outline has (title, page) pairs."""
    n, entries = len(pages), len(outline)
    first_page, first_entry = 4, 4 + 2 * len(pages)
    kids = " ".join(f"{first_page + 2 * i} 0 R" for i in range(n))
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R{f' /Outlines {first_entry} 0 R' if outline else ''} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {n} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj T*\n" for line in lines)
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td\n{shown}ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {first_page + 2 * i + 1} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    if outline:
        objects.append(f"<< /First {first_entry + 1} 0 R /Last {first_entry + entries} 0 R /Count {entries} >>")
        for i, (title, page) in enumerate(outline):
            after = f" /Next {first_entry + 2 + i} 0 R" if i + 1 < entries else ""
            at = f"/Parent {first_entry} 0 R /Dest [{first_page + 2 * page} 0 R /Fit]"
            objects.append(f"<< /Title ({title}) {at}{after} >>")
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R{encrypt} >>"
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    return out + f"{head}{table}trailer\n{trailer}\nstartxref\n{len(out)}\n%%EOF\n".encode()


def encrypted_pdf():
    """A PDF that opens with a password alone: its keys are of none that anybody knows."""
    keys = f"/O <{'ab' * 32}> /U <{'cd' * 32}>"
    ids = f"/ID [<{'01' * 16}> <{'01' * 16}>]"
    return pdf([["secret owls"]], encrypt=f" /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 {keys} >> {ids}")


def notebook(*cells):
    """A notebook of (type, source) pairs."""
    found = [{"cell_type": kind, "source": source, "metadata": {}, "outputs": []} for kind, source in cells]
    return json.dumps({"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
