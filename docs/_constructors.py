"""What static analysis misses of kernelode's classes, for the pages in `docs/api`.

An Equinox module, or a named tuple, that has no `__init__` of its own gets the one that its fields make;
a docstring that is assigned to a method below its class is found; and a public function whose module has
the same name is the function, as it is when Python runs.
"""

import ast

import griffe


class Constructors(griffe.Extension):
    """Constructors, docstrings and functions as `help` would show them."""

    def on_class_members(self, *, node, cls: griffe.Class, agent, **kwargs) -> None:
        """Add the constructor that the fields of a class make."""
        if "__init__" in cls.members or not isinstance(node, ast.ClassDef):
            return
        fields = [member for member in cls.members.values() if _is_field(member)]
        if not fields:
            return
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        for field in fields:
            parameters.append(
                griffe.Parameter(
                    field.name,
                    annotation=field.annotation,
                    kind=griffe.ParameterKind.positional_or_keyword,
                    default=_default(field),
                )
            )
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))

    def on_module_members(self, *, node, mod: griffe.Module, agent, **kwargs) -> None:
        """Attach the docstrings of statements such as `ResNet.__init__.__doc__ = "..."`."""
        for statement in node.body if isinstance(node, ast.Module) else ():
            match statement:
                case ast.Assign(
                    targets=[
                        ast.Attribute(
                            value=ast.Attribute(value=ast.Name(id=owner), attr=method), attr="__doc__"
                        )
                    ],
                    value=ast.Constant(value=str(text)),
                ):
                    function = mod.members[owner].members[method]
                    function.docstring = griffe.Docstring(text, parent=function)

    def on_package(self, *, pkg: griffe.Module, loader, **kwargs) -> None:
        """Lead a name that a module and a function in it share to the function."""
        for name, member in list(pkg.members.items()):
            if not member.is_alias:
                continue
            try:
                target = loader.modules_collection[member.target_path]
            except KeyError:
                continue
            if target.is_module and name in target.members:
                pkg.set_member(name, griffe.Alias(name, f"{target.path}.{name}", parent=pkg))


def _is_field(member) -> bool:
    """Whether a member of a class body is a field: annotated, and not one of a subclass to come."""
    return (
        member.is_attribute
        and member.annotation is not None
        and "property" not in member.labels
        and "AbstractVar" not in str(member.annotation)
    )


def _default(field):
    """A field's default: what stands there, or what it hands to `equinox.field`."""
    if isinstance(field.value, griffe.ExprCall) and str(field.value.function).endswith("field"):
        named = {a.name: a.value for a in field.value.arguments if isinstance(a, griffe.ExprKeyword)}
        return named.get("default")
    return field.value
