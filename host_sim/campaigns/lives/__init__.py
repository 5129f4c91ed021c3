"""Random lives of one node, against a model that knows which trees and which ends are right."""
