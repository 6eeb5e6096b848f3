from .compare import Comparison as Comparison, Row as Row, compare as compare
